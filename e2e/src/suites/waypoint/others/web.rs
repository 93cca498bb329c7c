//! nginx and curl through a waypoint: large answers, kept connections, chunks, uploads that wait to be asked for; and
//! a server that breaks the rules of HTTP, which harms nobody but whoever asks it.

use anyhow::ensure;

use super::{pod, until_printed};
use crate::mesh::standard::Standard;
use crate::programs::hostile::{Fate, OFFENCES, WELL};
use crate::programs::port;
use crate::report::Report;
use crate::suites::nginx::{self, Site};
use crate::suites::waypoint::waypoints;

/// What nginx serves.
const BYTES: u32 = 100_000_000;

/// nginx, and the server that breaks the rules.
pub(super) async fn serve(standard: &Standard, files: &std::path::Path) -> anyhow::Result<Site> {
    let site = Site::make(&files.join("nginx"), BYTES)?;
    for (name, port) in [("nginx", nginx::PLAIN), ("nginx2", nginx::HTTP2)] {
        pod(standard, "ambient", name, (80, port), &site.command()).await?;
    }
    let program = standard.mesh.program()?;
    pod(
        standard,
        "ambient",
        "hostile",
        (80, port::HOSTILE),
        &[&program, "hostile"],
    )
    .await?;
    Ok(site)
}

pub(super) async fn run(standard: &Standard, report: &mut Report, client: &str, site: &Site) {
    let mut check = |name: &str, result| report.check(format!("{client}: {name}"), result);
    check("curl and nginx, 100 MB", download(standard, client, site).await);
    check(
        "curl and nginx, 100 MB in chunks",
        chunks(standard, client, site).await,
    );
    check(
        "curl and nginx, an upload that waits to be asked for",
        upload(standard, client, site, "awaited").await,
    );
    check(
        "curl and nginx, an upload in chunks",
        upload(standard, client, site, "chunked").await,
    );
    check("h2load and nginx over HTTP/2", h2load(standard, client).await);
    check("a server that breaks the rules", hostile(standard, client).await);
}

async fn shell(
    standard: &Standard,
    client: &str,
    script: &str,
    right: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    until_printed(
        standard,
        client,
        &["bash", "-euo", "pipefail", "-c", script],
        right,
    )
    .await
}

async fn download(standard: &Standard, client: &str, site: &Site) -> anyhow::Result<String> {
    let script = "curl -sSf -m 60 http://nginx.ambient/file | sha256sum; \
                  curl -sSf -m 20 -o /dev/null -o /dev/null -w '%{num_connects} ' http://nginx.ambient/nginx.conf http://nginx.ambient/nginx.conf; \
                  curl -sS -m 20 -o /dev/null -w '%{http_code}' http://nginx.ambient/absent";
    let printed = shell(standard, client, script, |printed| printed.starts_with(&site.sum)).await?;
    ensure!(printed.trim_end().ends_with("1 0 404"), "{printed:?}");
    Ok(format!(
        "{} bytes with the right checksum; a kept connection; a 404 of nginx's own",
        site.bytes
    ))
}

async fn chunks(standard: &Standard, client: &str, site: &Site) -> anyhow::Result<String> {
    let script = "head=$(mktemp); trap 'rm $head' EXIT; \
                  curl -sSf -m 60 -D $head http://nginx.ambient/chunked | sha256sum; \
                  grep -i '^transfer-encoding' $head || true";
    let printed = shell(standard, client, script, |printed| printed.contains(&site.sum)).await?;
    let chunked = printed
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    ensure!(chunked, "not in chunks: {printed:?}");
    Ok(format!("{} bytes with the right checksum", site.bytes))
}

/// `awaited`: of a known length, begun once the server's side wants it; or `chunked`, of a length that is not known.
async fn upload(standard: &Standard, client: &str, site: &Site, how: &str) -> anyhow::Result<String> {
    let file = site.file();
    let (file, name) = (file.display(), format!("{client}-{how}"));
    let url = format!("http://nginx.ambient/taken/{name}");
    let from = match how {
        "awaited" => format!("-H 'Expect: 100-continue' -T {file}"),
        _ => format!("-T - <{file}"),
    };
    let script = format!("curl -v -sS -m 60 -o /dev/null -w '%{{http_code}}' {url} {from} 2>&1");
    let printed = shell(standard, client, &script, |printed| {
        printed.ends_with("201") || printed.ends_with("204")
    })
    .await?;
    let asked_for = printed.contains("HTTP/1.1 100");
    ensure!(asked_for || how != "awaited", "never asked for: {printed}");
    ensure!(site.taken(&name)? == site.sum, "other bytes came");
    Ok(format!("{} bytes with the right checksum", site.bytes))
}

async fn h2load(standard: &Standard, client: &str) -> anyhow::Result<String> {
    let command = [
        "h2load",
        "-n",
        "2000",
        "-c",
        "8",
        "-m",
        "10",
        "http://nginx2.ambient/nginx.conf",
    ];
    let printed = standard.mesh.exec(standard.client(client)?, &command).await?;
    let line = printed.lines().find(|line| line.starts_with("requests:"));
    let line = line.unwrap_or("no totals");
    ensure!(line.contains("2000 succeeded, 0 failed, 0 errored"), "{line}");
    Ok(line.to_owned())
}

/// Each offence, and a request after it over the same connection where that is left.
async fn hostile(standard: &Standard, client: &str) -> anyhow::Result<String> {
    let before = waypoints(standard, "ambient").await?;
    let well = format!("http://hostile.ambient{WELL}");
    let ready = format!("curl -sS -m 10 -o /dev/null -w '%{{http_code}}' {well}");
    shell(standard, client, &ready, |printed| printed == "200").await?;
    for offence in OFFENCES {
        let path = offence.path;
        let script = format!(
            "curl -sS -m 10 -D - -o /dev/null -o /dev/null -w '%{{http_code}} %{{exitcode}} %{{size_download}}\\n' http://hostile.ambient{path} {well} || true"
        );
        let command = ["bash", "-c", &script];
        let printed = standard.mesh.exec(standard.client(client)?, &command).await?;
        // The lines of heads end as they should; curl's own tell what came of each request.
        let (head, lines): (Vec<&str>, Vec<&str>) = printed
            .split_terminator('\n')
            .partition(|line| line.ends_with('\r'));
        let refused = matches!(lines[..], [first, "200 0 5"] if first.starts_with("502 0 "));
        let field = |line: &&str| line.eq_ignore_ascii_case("x-field: value\r");
        let mended = lines == ["200 0 5", "200 0 5"] && head.iter().any(field);
        // "Transfer closed with bytes remaining to read", "failure in receiving": what had come may be lost with a
        // reset, its head too.
        let broken = |first: &str| matches!(first.split(' ').nth(1), Some("18" | "56"));
        let cut = matches!(lines[..], [first, "200 0 5"] if broken(first));
        let right = match offence.fate {
            Fate::Refused => refused,
            Fate::Mended => refused || mended,
            Fate::Cut => refused || cut,
        };
        ensure!(
            right,
            "{path} was to be {:?}, and the next served: {lines:?}",
            offence.fate
        );
    }
    let after = waypoints(standard, "ambient").await?;
    ensure!(before == after, "the waypoint has ended: {before:?}, {after:?}");
    Ok(format!(
        "{} offences, each refused with 502, mended or cut; the next request was served, by the same process",
        OFFENCES.len()
    ))
}
