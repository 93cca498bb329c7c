use proptest::prelude::*;

use super::*;

fn of(values: &[&str]) -> Result<Option<Duration>, InvalidTimeout> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(TIMEOUT, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    timeout(&headers)
}

#[test]
fn a_time_is_read_as_it_is_defined_or_not_at_all() {
    assert_eq!(of(&[]), Ok(None));
    for (value, expected) in [
        ("1n", Duration::from_nanos(1)),
        ("20u", Duration::from_micros(20)),
        ("300m", Duration::from_millis(300)),
        ("4S", Duration::from_secs(4)),
        ("05M", Duration::from_secs(300)),
        ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ("0n", Duration::ZERO),
    ] {
        assert_eq!(of(&[value]), Ok(Some(expected)), "{value}");
    }
    for value in [
        "",
        "S",
        "1",
        "1s",
        "1h",
        "+1S",
        "-1S",
        "1.5S",
        " 1S",
        "1S ",
        "1 S",
        "123456789n",
        "000000001S",
        "1SS",
        "1ms",
        "1S,2S",
        "١S",
    ] {
        assert_eq!(of(&[value]), Err(InvalidTimeout), "{value:?}");
    }
    assert_eq!(of(&["1S", "1S"]), Err(InvalidTimeout));
}

/// By the grammar, letter by letter.
fn by_the_grammar(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    let well_formed = (1..=8).contains(&digits.len()) && digits.chars().all(|digit| digit.is_ascii_digit());
    let number: u32 = well_formed.then(|| digits.parse().ok()).flatten()?;
    Some(
        number
            * match unit {
                'H' => Duration::from_secs(3_600),
                'M' => Duration::from_secs(60),
                'S' => Duration::from_secs(1),
                'm' => Duration::from_millis(1),
                'u' => Duration::from_micros(1),
                'n' => Duration::from_nanos(1),
                _ => return None,
            },
    )
}

proptest! {
    #[test]
    fn times_are_those_of_the_grammar(text in "[0-9]{0,10}[HMSmunsh]?[ 0-9a-zA-Z.]{0,1}") {
        prop_assert_eq!(of(&[&text]).ok().flatten(), by_the_grammar(&text));
    }

    #[test]
    fn what_is_left_is_said_closely_and_never_as_more(nanoseconds in any::<u64>(), shift in 0_u32..64) {
        let left = Duration::from_nanos(nanoseconds >> shift);
        let value = timeout_value(left);
        let said = of(&[value.to_str().unwrap()]).unwrap().unwrap();
        prop_assert!(said <= left);
        prop_assert!(left - said <= left / 100_000, "{left:?} as {said:?}");
    }
}

proptest! {
    #[test]
    fn messages_end_where_they_end_however_they_are_cut(
        lengths in prop::collection::vec(0_usize..300, 0..6),
        cuts in prop::collection::vec(1_usize..64, 1..8),
    ) {
        let mut body = Vec::new();
        let mut ends = vec![0];
        for length in lengths {
            body.push(0);
            body.extend((length as u32).to_be_bytes());
            body.extend(vec![255; length]);
            ends.push(body.len());
        }
        let (mut messages, mut at) = (Messages::default(), 0);
        prop_assert!(messages.between());
        for cut in cuts.iter().cycle() {
            let end = body.len().min(at + cut);
            messages.pass(&body[at..end]);
            prop_assert_eq!(messages.between(), ends.contains(&end), "at {}", end);
            let passed = ends[1..].iter().filter(|one| **one <= end).count() as u64;
            prop_assert_eq!(messages.passed(), passed, "at {}", end);
            at = end;
            if at == body.len() {
                break;
            }
        }
    }
}

/// Of a whole body: how many messages it holds, up to the first prefix that is none, and whether it ends with one.
fn by_the_whole(mut body: &[u8]) -> (u64, bool) {
    let mut passed = 0;
    while let [flags, rest @ ..] = body {
        let [a, b, c, d, rest @ ..] = rest else {
            return (passed, false);
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *flags > 1 || rest.len() < length {
            return (passed, false);
        }
        passed += 1;
        body = &rest[length..];
    }
    (passed, true)
}

proptest! {
    #[test]
    fn what_is_no_message_is_not_counted_however_it_is_cut(
        messages in prop::collection::vec((prop_oneof![8 => 0_u8..2, 1 => any::<u8>()], 0_usize..40), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..12),
        cuts in prop::collection::vec(1_usize..16, 1..8),
    ) {
        let mut body = Vec::new();
        for (flags, length) in messages {
            body.push(flags);
            body.extend((length as u32).to_be_bytes());
            body.extend(vec![0; length]);
        }
        body.extend(rest);
        let (mut messages, mut left, mut cuts) = (Messages::default(), body.as_slice(), cuts.iter().cycle());
        while let (false, Some(cut)) = (left.is_empty(), cuts.next()) {
            let (piece, rest) = left.split_at(left.len().min(*cut));
            messages.pass(piece);
            left = rest;
        }
        prop_assert_eq!((messages.passed(), messages.between()), by_the_whole(&body));
    }
}
