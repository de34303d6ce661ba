use super::*;

fn bytes(hex: &str) -> BytesMut {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect::<Vec<_>>().as_slice().into()
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn another_compressors_frames_are_read() {
    // Two streams as zlib with the dictionary packs them; the second block leans on the first.
    let mut buffer = bytes(
        "800300010000003c0000000100000000000078f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b20\
         9198094adc8c0600000000ffff800300010000001800000003000000000000c2aa15540a2512d209000000ffff",
    );
    let mut decoder = Decoder::default();
    for (id, kind) in [(1, "error"), (3, "data")] {
        let headers = headers(&[("streamtype", kind), ("port", "80"), ("requestid", "0")]);
        let expect = Frame::SynStream { id, fin: false, unidirectional: false, headers };
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(expect)));
    }
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
}

#[test]
fn frames_go_round_however_they_are_cut() {
    let many: Vec<(String, String)> =
        (0..500).map(|n| (format!("name-{n}"), format!("value {n} {}", n * 7919))).collect();
    let frames = [
        Frame::SynStream { id: 1, fin: false, unidirectional: false, headers: headers(&[("a", "b")]) },
        Frame::SynReply { id: 1, fin: false, headers: Vec::new() },
        Frame::Headers { id: 1, fin: true, headers: many },
        Frame::Ping { id: 7 },
        Frame::SynStream {
            id: 3,
            fin: true,
            unidirectional: true,
            headers: headers(&[("a", "b"), ("long", &"x".repeat(9000))]),
        },
        Frame::RstStream { id: 3, status: CANCEL },
        Frame::GoAway { last: 3 },
    ];
    for step in [1, 7, 100_000] {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut all = BytesMut::new();
        frames.iter().for_each(|frame| encoder.encode(frame, &mut all));
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for chunk in all.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, frames);
    }
}

#[test]
fn data_need_not_be_whole() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let (mut all, mut buffer) = (BytesMut::new(), BytesMut::new());
    encoder.encode(&Frame::Data { id: 5, fin: true, data: Bytes::from_static(b"hello") }, &mut all);
    encoder.encode(&Frame::Data { id: 5, fin: true, data: Bytes::new() }, &mut all);
    let mut got = Vec::new();
    for chunk in [&all[..10], &all[10..]] {
        buffer.extend_from_slice(chunk);
        while let Some(Frame::Data { id: 5, fin, data }) = decoder.decode(&mut buffer).unwrap() {
            got.push((data, fin));
        }
    }
    let expect: [(&[u8], bool); 3] = [(b"he", false), (b"llo", true), (b"", true)];
    assert_eq!(got, expect.map(|(data, fin)| (Bytes::from_static(data), fin)));
}

#[test]
fn broken_frames_are_told() {
    let check = |hex: &str, expect: Result<Option<Frame>, FrameError>| {
        assert_eq!(Decoder::default().decode(&mut bytes(hex)), expect, "{hex}");
    };
    check("8003000600000004", Ok(None));
    check("800300060000000400000001", Ok(Some(Frame::Ping { id: 1 })));
    check("800200060000000400000001", Err(FrameError::Version(2)));
    check("8003000600ffffff", Err(FrameError::TooLarge(0xffffff)));
    check("80030006000000020001", Err(FrameError::Truncated));
    check("80030001000000080000000100000000", Err(FrameError::Truncated));
    check("80030001000000100000000100000000000001020304ffff", Err(FrameError::Headers));
    // Settings and window updates mean nothing here.
    check("8003000400000004000000008003000900000008000000010000ffff", Ok(None));
}

#[test]
fn headers_cannot_burst() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut buffer = BytesMut::new();
    let headers = headers(&[("bomb", &"0".repeat(2 * MAX_CONTROL))]);
    encoder.encode(&Frame::SynStream { id: 1, fin: false, unidirectional: false, headers }, &mut buffer);
    assert!(buffer.len() < 10_000);
    assert!(matches!(decoder.decode(&mut buffer), Err(FrameError::TooLarge(_))));
}
