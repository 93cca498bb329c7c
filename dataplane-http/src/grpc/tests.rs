use proptest::prelude::*;

use super::*;

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
            at = end;
            if at == body.len() {
                break;
            }
        }
    }
}
