//! Heads of responses.

use super::super::Limits;
use super::*;

fn request(text: &str) -> Head {
    let mut head = Head::default();
    head.parse(text.as_bytes(), 0, &Limits::default()).unwrap();
    head
}

fn get() -> Head {
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn made(request: &Head, status: &str, fields: &[(&str, &str)], whole: Option<u64>) -> (String, Framing, bool) {
    let mut response = Response::default();
    response.start(status.as_bytes()).unwrap();
    for (name, value) in fields {
        response.field(name.as_bytes(), value.as_bytes()).unwrap();
    }
    let mut keep = request.keep_alive;
    let framing = response.end(request, &mut keep, whole, b"now", b"me");
    (String::from_utf8(response.head).unwrap(), framing, keep)
}

#[test]
fn a_response() {
    let (head, framing, keep) = made(&get(), "200 OK", &[("Content-Type", "a/b")], Some(5));
    let wanted = "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nServer: me\r\nDate: now\r\nContent-Length: 5\r\n\r\n";
    assert_eq!((head.as_str(), framing, keep), (wanted, Framing::Length(5), true));
}

#[test]
fn framings() {
    let framing = |request: &Head, status, fields: &[(&str, &str)], whole| {
        let (head, framing, keep) = made(request, status, fields, whole);
        let has = |name: &str| head.contains(name);
        (framing, keep, has("Content-Length"), has("Transfer-Encoding"))
    };
    let old = request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let length = [("Content-Length", "7")];
    assert_eq!(framing(&get(), "200 OK", &[], None), (Framing::Chunked, true, false, true));
    assert_eq!(framing(&get(), "200 OK", &length, Some(9)), (Framing::Length(7), true, true, false));
    assert_eq!(framing(&old, "200 OK", &[], None), (Framing::Close, false, false, false));
    assert_eq!(framing(&old, "200 OK", &length, None), (Framing::Length(7), true, true, false));
    assert_eq!(framing(&head, "200 OK", &length, None), (Framing::Bodiless, true, true, false));
    assert_eq!(framing(&head, "200 OK", &[], Some(0)), (Framing::Bodiless, true, false, false));
    assert_eq!(framing(&head, "200 OK", &[], Some(5)), (Framing::Bodiless, true, true, false));
    assert_eq!(framing(&get(), "204 No Content", &length, None), (Framing::Bodiless, true, false, false));
    assert_eq!(framing(&get(), "304 Not Modified", &length, None), (Framing::Bodiless, true, true, false));
    assert_eq!(framing(&get(), "200 OK", &[("Connection", "close")], None), (Framing::Chunked, false, false, true));
    let own = [("Transfer-Encoding", "chunked"), ("Keep-Alive", "1"), ("Upgrade", "x"), ("TE", "y")];
    let (text, framing, _) = made(&get(), "200 OK", &own, Some(1));
    assert_eq!(framing, Framing::Length(1));
    assert!(
        !text.contains("chunked") && !text.contains("Keep-Alive") && !text.contains("Upgrade") && !text.contains("TE")
    );
}

#[test]
fn another_protocol() {
    let (text, framing, keep) =
        made(&get(), "101 Switching Protocols", &[("Upgrade", "x"), ("Connection", "Upgrade")], None);
    assert!(text.contains("Upgrade: x\r\n") && text.contains("Connection: Upgrade\r\n"));
    assert_eq!((framing, keep), (Framing::Bodiless, false));
}

#[test]
fn what_a_program_may_not_write() {
    let mut response = Response::default();
    for status in ["", "20", "abc OK", "200OK", "200 O\r\nK", "099 x", "2000 x", "200 \n", "100 Continue", "103 x"] {
        assert_eq!(response.start(status.as_bytes()), Err(Wrong::Status), "{status:?}");
    }
    response.start(b"200 OK").unwrap();
    for (name, value, wrong) in [
        ("", "", Wrong::Name),
        ("a b", "", Wrong::Name),
        ("a:", "", Wrong::Name),
        ("a\r\n", "", Wrong::Name),
        ("a", "b\r\nc", Wrong::Value),
        ("a", "b\nc", Wrong::Value),
        ("a", "\0", Wrong::Value),
        ("Content-Length", "x", Wrong::Length),
        ("Content-Length", "+1", Wrong::Length),
    ] {
        assert_eq!(response.field(name.as_bytes(), value.as_bytes()), Err(wrong), "{name:?} {value:?}");
    }
    response.field(b"Content-Length", b"1").unwrap();
    assert_eq!(response.field(b"Content-Length", b"2"), Err(Wrong::Length));
}

#[test]
fn dates() {
    assert_eq!(&date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(&date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(&date(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
    assert_eq!(&date(4_102_444_799), b"Thu, 31 Dec 2099 23:59:59 GMT");
}

#[test]
fn numbers() {
    for number in [0, 7, 10, 1_234_567, u64::MAX] {
        assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
    }
}
