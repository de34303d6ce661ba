use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn texts_become_canonical() {
    let cases = [
        ("0", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("001", "1"),
        ("1.", "1"),
        (".5", "500m"),
        ("0.5", "500m"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("10000", "10k"),
        ("1001", "1001"),
        ("1G", "1G"),
        ("1000M", "1G"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("2048", "2048"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("1023Mi", "1023Mi"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e6", "12e6"),
        ("1e10", "10e9"),
        ("100e-3", "100e-3"),
        ("1e-9", "1e-9"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("1.1n", "2n"),
        ("-0.1n", "-1n"),
        ("1u", "1u"),
        ("1500u", "1500u"),
        ("1E", "1E"),
        ("9Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("128Mi", "128Mi"),
        ("110", "110"),
        ("1000E", "1e21"),
        ("5Ti", "5Ti"),
        ("-1Ki", "-1Ki"),
        ("0.001Ki", "1024m"),
        ("1.000000000001", "1000000001n"),
        ("Gi", "0"),
        ("1e-30", "1e-9"),
        ("123456789012345678901", "123456789012345678901"),
    ];
    for (text, canonical) in cases {
        assert_eq!(quantity(text).to_string(), canonical, "{text}");
        assert_eq!(quantity(canonical), quantity(text), "{text}");
    }
}

#[test]
fn bad_texts_are_refused_with_upstreams_sentences() {
    use QuantityError::*;
    for (text, error) in [
        ("", Format),
        ("1.1.M", Format),
        ("1+1.0M", Format),
        ("0.1mi", Suffix),
        ("0.1am", Format),
        ("aoeu", Format),
        (".5i", Suffix),
        ("1i", Suffix),
        ("-3.01e-", Suffix),
        (" 1", Format),
        ("1 ", Format),
        ("1ki", Suffix),
        ("1kk", Suffix),
        ("1e3k", Format),
        ("--1", Suffix),
        ("1m5", Suffix),
    ] {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), error, "{text}");
    }
}

#[test]
fn values_round_away_from_zero() {
    for (text, value, milli) in [
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("-100m", -1, -100),
        ("1n", 1, 1),
        ("1500m", 2, 1500),
        ("1Gi", 1 << 30, (1 << 30) * 1000),
        ("1e30", i64::MAX, i64::MAX),
        ("1E", 10i64.pow(18), i64::MAX),
    ] {
        assert_eq!((quantity(text).value(), quantity(text).milli_value()), (value, milli), "{text}");
    }
    assert_eq!(quantity("1500m").as_i64(), None);
    assert_eq!(quantity("2k").as_i64(), Some(2000));
}

#[test]
fn sums_keep_the_left_notation() {
    for (a, b, sum, difference) in [
        ("1", "500m", "1500m", "500m"),
        ("1Gi", "1Mi", "1025Mi", "1023Mi"),
        ("0", "1Gi", "1Gi", "-1Gi"),
        ("1Gi", "0", "1Gi", "1Gi"),
        ("1Ki", "1k", "2024", "24"),
        ("100m", "0.9", "1", "-800m"),
    ] {
        assert_eq!((quantity(a) + quantity(b)).to_string(), sum, "{a} + {b}");
        assert_eq!((quantity(a) - quantity(b)).to_string(), difference, "{a} - {b}");
    }
}

#[test]
fn order_is_by_value() {
    for (a, b, order) in [
        ("1", "1000m", Ordering::Equal),
        ("1Ki", "1k", Ordering::Greater),
        ("-1", "1n", Ordering::Less),
        ("1e40", "1n", Ordering::Greater),
    ] {
        assert_eq!(quantity(a).cmp(&quantity(b)), order, "{a} {b}");
    }
}

#[test]
fn fields_hold_strings_or_numbers() {
    let read = |json: &str| Quantity::from_value(&Value::parse(json.as_bytes()).unwrap());
    assert_eq!(read("\"1Gi\"").unwrap().unwrap().to_string(), "1Gi");
    assert_eq!(read("2").unwrap().unwrap().to_string(), "2");
    assert_eq!(read("0.5").unwrap().unwrap().to_string(), "500m");
    assert!(read("\"x\"").unwrap().is_err());
    assert!(read("true").is_none());
}
