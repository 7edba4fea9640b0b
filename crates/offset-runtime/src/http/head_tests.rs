//! Heads: what is read, what is refused and why, and that it does not matter how they come.

use super::*;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<(Head, Vec<u8>), Refusal> {
    let limits = Limits::default();
    let Some(found) = Scan::default().find(bytes, &limits)? else { return refuse(0, "not all of it is there") };
    let buffer = bytes[..found.end].to_vec();
    let mut head = Head::default();
    head.parse(&buffer, found.start, &limits)?;
    Ok((head, buffer))
}

fn status(bytes: &[u8]) -> u16 {
    read(bytes).map_or_else(|refusal| refusal.status, |_| 200)
}

fn with(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

#[test]
fn a_request() {
    let (head, buffer) = read(b"\r\nPOST /a%20b/?x=1&y HTTP/1.1\r\nHost: a:80\r\nX-Y:  z \r\n\r\nmore").unwrap();
    assert_eq!(head.method(&buffer), b"POST");
    assert_eq!(head.target(&buffer), b"/a%20b/?x=1&y");
    assert_eq!(head.path(&buffer), b"/a%20b/");
    assert_eq!(head.query(&buffer), b"x=1&y");
    let fields: Vec<_> = head.fields.iter().map(|field| (field.name(&buffer), field.value(&buffer))).collect();
    assert_eq!(fields, [(&b"Host"[..], &b"a:80"[..]), (b"X-Y", b"z")]);
    assert!(head.keep_alive && head.framing == Framing::Empty && !head.expects && !head.upgrade);
    assert!(buffer.ends_with(b"\r\n\r\n"));
}

#[test]
fn targets() {
    let parts = |target: &str| {
        let (head, buffer) = read(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).ok()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(head.path(&buffer)), text(head.query(&buffer))))
    };
    let some = |path: &str, query: &str| Some((path.to_owned(), query.to_owned()));
    assert_eq!(parts("/"), some("/", ""));
    assert_eq!(parts("//x"), some("//x", ""));
    assert_eq!(parts("/?"), some("/", ""));
    assert_eq!(parts("/a?b?c"), some("/a", "b?c"));
    assert_eq!(parts("http://h/a?b"), some("/a", "b"));
    assert_eq!(parts("HTTPS://h"), some("", ""));
    assert_eq!(parts("http://h?b"), some("", "b"));
    for (target, host) in [("http://h:8/a", "h:8"), ("http://[::1]?b", "[::1]"), ("/a", "")] {
        let (head, buffer) = read(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(head.authority(&buffer), host.as_bytes());
    }
    for target in [
        "a",
        "*",
        "http:///a",
        "http://u@h/",
        "http://h\\/a",
        "http://h\"/",
        "ftp://h/",
        "/a#b",
        "/\u{e9}",
        "/\x7f",
        "http:/a",
        "",
    ] {
        assert_eq!(parts(target), None, "{target:?}");
    }
    assert_eq!(status(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(status(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
}

#[test]
fn what_frames_a_body() {
    let framing = |lines: &str| read(with(lines).as_bytes()).map(|(head, _)| head.framing).map_err(|why| why.status);
    assert_eq!(framing("Content-Length: 0"), Ok(Framing::Empty));
    assert_eq!(framing("Content-Length: 12"), Ok(Framing::Length(12)));
    assert_eq!(framing("Content-Length: 0012"), Ok(Framing::Length(12)));
    assert_eq!(framing("Transfer-Encoding: chunked"), Ok(Framing::Chunked));
    assert_eq!(framing("transfer-encoding: CHUNKED"), Ok(Framing::Chunked));
    for lines in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1, 1",
        "Content-Length: +1",
        "Content-Length: -1",
        "Content-Length: 0x1",
        "Content-Length: 1_0",
        "Content-Length: 1 0",
        "Content-Length:",
        "Content-Length: 9223372036854775808",
        "Content-Length: 99999999999999999999999999",
        "Content-Length : 1",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked, x",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:\u{b}chunked",
    ] {
        assert_eq!(framing(lines), Err(400), "{lines:?}");
    }
    assert_eq!(framing("Transfer-Encoding: gzip, chunked"), Err(501));
    assert_eq!(status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn what_is_no_head() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n b: folded\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
        b"GET / HTTP/11\r\nHost: a\r\n\r\n",
        b"GET /\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ] {
        assert_eq!(status(bytes), 400, "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(status(b"PRI * HTTP/2.0\r\n\r\n"), 505);
    assert_eq!(status(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"), 505);
    assert_eq!(status(with("Expect: 200-ok").as_bytes()), 417);
    assert_eq!(status(&[b"x".repeat(40), b" / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat()), 501);
}

#[test]
fn what_is_kept() {
    let keep = |text: &str| read(text.as_bytes()).unwrap().0.keep_alive;
    assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn upgrades_and_expectations() {
    let head = |lines: &str| read(with(lines).as_bytes()).unwrap().0;
    assert!(head("Upgrade: websocket\r\nConnection: keep-alive, Upgrade").upgrade);
    assert!(!head("Upgrade: websocket").upgrade);
    assert!(!head("Connection: Upgrade").upgrade);
    assert!(head("Expect: 100-Continue\r\nContent-Length: 1").expects);
    assert!(!head("Expect: 100-continue").expects, "there is nothing to wait for");
    assert!(!read(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap().0.expects);
}

#[test]
fn limits_hold_before_the_end_is_there() {
    let limits = Limits { target: 100, head: 1000, fields: 3, body: 10 };
    let find = |bytes: &[u8]| Scan::default().find(bytes, &limits).map_err(|why| why.status);
    assert_eq!(find(&[b"GET /".to_vec(), b"a".repeat(200)].concat()), Err(414));
    assert_eq!(find(&[b"GET / HTTP/1.1\r\nX: ".to_vec(), b"a".repeat(990)].concat()), Err(431));
    assert_eq!(find(&[b"GET / HTTP/1.1\r\nX: ".to_vec(), b"a".repeat(990), b"\r\n\r\n".to_vec()].concat()), Err(431));
    let parse = |text: &str| Head::default().parse(text.as_bytes(), 0, &limits).map_err(|why| why.status);
    assert_eq!(parse(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100))), Err(414));
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n"), Ok(()));
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"), Err(431));
}

/// What a scan finds when the bytes come in pieces.
fn find_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<Range<usize>>, Refusal> {
    let limits = Limits { target: 40, head: 200, ..Limits::default() };
    let mut scan = Scan::default();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    for end in ends {
        if let Some(found) = scan.find(&bytes[..end], &limits)? {
            return Ok(Some(found));
        }
    }
    scan.find(bytes, &limits)
}

fn nearly_heads() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 16] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"GET / HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"x",
        b"\0",
        b"\xff",
        b"Connection: close\r\n",
        b"http://",
        b"?",
        b"\t",
    ];
    let piece = prop::sample::select(pieces.to_vec());
    let loose = prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat());
    let begun = loose.clone().prop_map(|rest| [&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], &rest, b"\r\n\r\n"].concat());
    prop_oneof![loose, begun, prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #[test]
    fn heads_may_come_in_any_pieces(bytes in nearly_heads(), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let (whole, pieces) = (find_in_pieces(&bytes, &[]), find_in_pieces(&bytes, &cuts));
        match (&whole, &pieces) {
            // Which limit is met first depends on when one looks.
            (Err(_), Err(_)) => {}
            _ => prop_assert_eq!(whole, pieces),
        }
    }

    #[test]
    fn what_is_read_is_clean(bytes in nearly_heads()) {
        let Ok((head, buffer)) = read(&bytes) else { return Ok(()) };
        prop_assert!(!head.method(&buffer).is_empty());
        prop_assert!(head.target(&buffer).iter().all(u8::is_ascii_graphic));
        for field in &head.fields {
            prop_assert!(field.name(&buffer).iter().all(u8::is_ascii_graphic));
            prop_assert!(field.value(&buffer).iter().all(|byte| !b"\r\n\0".contains(byte)));
        }
    }
}
