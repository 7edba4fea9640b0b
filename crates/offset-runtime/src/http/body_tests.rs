//! Bodies: what is read, what is refused, and that it does not matter how they come.

use super::*;
use proptest::prelude::*;

/// Reads a body that comes in pieces of a size: the body, and what follows it.
fn read(
    framing: Framing,
    bytes: &[u8],
    piece: usize,
    most: usize,
    limits: &Limits,
) -> Result<(Vec<u8>, usize), Refusal> {
    let mut reader = Reader::new(framing, limits)?;
    let (mut body, mut done, mut there) = (Vec::new(), 0, 0);
    loop {
        let step = reader.take(&bytes[done..there], most)?;
        assert!(step.data.end <= step.consumed && step.data.len() <= most);
        body.extend_from_slice(&bytes[done..there][step.data.clone()]);
        done += step.consumed;
        if reader.ended() {
            return Ok((body, done));
        }
        if step.data.is_empty() {
            if there == bytes.len() {
                return refuse(0, "not all of it is there");
            }
            there = (there + piece).min(bytes.len());
        }
    }
}

fn chunked(text: &str) -> Result<(Vec<u8>, usize), u16> {
    read(Framing::Chunked, text.as_bytes(), usize::MAX >> 1, usize::MAX, &Limits::default()).map_err(|why| why.status)
}

#[test]
fn lengths() {
    let limits = Limits { body: 10, ..Limits::default() };
    assert_eq!(read(Framing::Length(3), b"abcdef", 2, 2, &limits), Ok((b"abc".to_vec(), 3)));
    assert_eq!(read(Framing::Empty, b"abc", 2, 2, &limits), Ok((Vec::new(), 0)));
    assert_eq!(Reader::new(Framing::Length(11), &limits).map(|_| ()).map_err(|why| why.status), Err(413));
    let mut reader = Reader::new(Framing::Length(4), &limits).unwrap();
    reader.take(b"ab", 9).unwrap();
    assert_eq!((reader.left(), reader.ended()), (Some(2), false));
}

#[test]
fn chunks() {
    assert_eq!(chunked("0\r\n\r\nGET"), Ok((Vec::new(), 5)));
    assert_eq!(chunked("3\r\nabc\r\n2;x=\"y\"\r\nde\r\n000\r\nX: y\r\n\r\n"), Ok((b"abcde".to_vec(), 34)));
    assert_eq!(chunked("A\r\n0123456789\r\n0\r\n\r\n").unwrap().0.len(), 10);
    for text in [
        "\r\n",
        "x\r\n",
        "-1\r\na\r\n",
        "+1\r\na\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "1\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1\r\na\rx",
        "1;\n",
        "1;\rx",
        "1\rx",
        ";\r\n",
        "10000000000000001\r\n",
        "00000000000000001\r\na\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\n x: y\r\n\r\n",
        "0\r\nx : y\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
        "0\r\nx: a\rb\r\n\r\n",
        "1;\0\r\na\r\n",
        "1_0\r\n",
    ] {
        assert_eq!(chunked(text), Err(400), "{text:?}");
    }
    assert_eq!(chunked("FFFFFFFFFFFFFFFF\r\n"), Err(0), "no limit was asked for");
}

#[test]
fn limits_of_chunks() {
    let limits = Limits { body: 10, head: 100, fields: 2, ..Limits::default() };
    let status = |text: &str| read(Framing::Chunked, text.as_bytes(), 7, 7, &limits).map_err(|why| why.status).err();
    assert_eq!(status("5\r\nabcde\r\n5\r\nabcde\r\n0\r\n\r\n"), None);
    assert_eq!(status("5\r\nabcde\r\n6\r\nabcdef\r\n0\r\n\r\n"), Some(413));
    assert_eq!(status("FFFFFFFFFFFFFFFF\r\n"), Some(413));
    assert_eq!(status(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(100))), Some(431));
    assert_eq!(status("0\r\na: b\r\na: b\r\na: b\r\n\r\n"), Some(431));
    assert_eq!(status(&format!("1;{}\r\na\r\n", "y".repeat(MOST_EXTENSION + 1))), Some(400));
}

#[test]
fn what_was_refused_stays_so() {
    let mut reader = Reader::new(Framing::Chunked, &Limits::default()).unwrap();
    assert!(reader.take(b"x", 1).is_err());
    assert!(reader.take(b"0\r\n\r\n", 1).is_err());
}

proptest! {
    #[test]
    fn bodies_may_come_in_any_pieces(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        piece in 1usize..50, most in 1usize..50, flaw in any::<Option<(usize, u8)>>(),
    ) {
        let mut bytes = Vec::new();
        for part in &parts {
            bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let size = bytes.len();
        if let Some((at, byte)) = flaw {
            bytes[at % size] = byte;
        }
        bytes.extend_from_slice(b"next");
        let limits = Limits::default();
        let read = |piece, most| read(Framing::Chunked, &bytes, piece, most, &limits);
        let whole = read(usize::MAX >> 1, usize::MAX);
        prop_assert_eq!(&read(piece, most), &whole);
        if flaw.is_none() {
            prop_assert_eq!(whole, Ok((parts.concat(), size)));
        }
    }

    #[test]
    fn nothing_breaks_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..20) {
        let _ = read(Framing::Chunked, &bytes, piece, 10, &Limits { body: 50, head: 50, ..Limits::default() });
    }
}
