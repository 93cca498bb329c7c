//! Reads the kernel's tables of TCP sockets. Pure.

/// State column of a listening socket.
const LISTENING: &str = "0A";

/// Local ports of the listening sockets in the text of `/proc/net/tcp` or `/proc/net/tcp6`.
pub(super) fn listening(text: &str) -> impl Iterator<Item = u16> {
    text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        let state = columns.nth(1)?;
        let (_, port) = local.rsplit_once(':')?;
        (state == LISTENING).then(|| u16::from_str_radix(port, 16).ok())?
    })
}
