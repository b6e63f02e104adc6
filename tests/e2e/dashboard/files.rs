//! What the shell is served with. It takes no browser to see that.

use crate::support::{
    http,
    process::{Process, folder_with},
};

#[tokio::test]
async fn the_shell_is_guarded_and_is_not_sent_twice() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (status, head, page) = http::get_raw(gateway.admin, "/", &[]).await;
    let head = head.to_ascii_lowercase();
    assert_eq!(status, 200);
    assert!(page.contains("<title>Conexus</title>"));
    for expected in [
        "content-type: text/html",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; \
         connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-cache",
    ] {
        assert!(head.contains(expected), "no {expected} in {head}");
    }
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim();
    let (status, _, body) = http::get_raw(gateway.admin, "/", &[("If-None-Match", tag)]).await;
    assert_eq!((status, body.as_str()), (304, ""));
    for (path, expected) in [("/app.js", 200), ("/pages/hooks.js", 200), ("/index.html", 404)] {
        assert_eq!(http::get_raw(gateway.admin, path, &[]).await.0, expected, "{path}");
    }
    let of_another_site = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(http::get_raw(gateway.admin, "/", &of_another_site).await.0, 403);
}
