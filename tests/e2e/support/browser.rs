//! A browser, driven through chromedriver: Chromium without a window, with a profile of its own.
//!
//! Whatever comes of the test, both end with it: Chromium listens to its driver alone, by a pipe, and
//! goes when that is closed; the driver is killed when its handle is dropped.

use std::{process::Stdio, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use thirtyfour::{
    By, Capabilities, ChromiumLikeCapabilities as _, DesiredCapabilities, Key, WebDriver,
    WebElement, error::WebDriverResult,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{PATIENCE, soon};

/// Nothing that goes out, and nothing that outlives the session.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    // Two tabs find each other by their addresses: multicast names take a network that has multicast.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
];

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// A running browser, with one tab to begin with.
pub(crate) struct Browser {
    tab: Tab,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, as wide as a desk's.
    ///
    /// # Panics
    /// Without chromedriver: the dashboard would go untested and nobody would know.
    pub(crate) async fn start() -> Self {
        // Its client is built with TLS and wants to know whose, although it never uses it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = start_driver().await;
        let tab = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities(&profile));
        let tab = soon("a browser", tab).await.unwrap_or_else(|error| {
            panic!("Chromium does not start (tests/run installs it): {error}")
        });
        let browser = Self { tab: Tab(tab), _driver: driver, _profile: profile };
        browser.resize(1280, 900).await;
        browser
    }

    /// How large the page is. Windows have a least size, which phones are below.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true });
        let resized = self.tab.cdp().send_raw("Emulation.setDeviceMetricsOverride", screen).await;
        resized.unwrap();
    }

    pub(crate) async fn open(&self, url: &str) {
        soon("a page", self.tab.goto(url)).await.unwrap();
    }

    /// Opens another tab and goes there. The first one is number 0.
    pub(crate) async fn open_tab(&self, url: &str) {
        let tab = soon("a tab", self.tab.new_tab()).await.unwrap();
        soon("the tab to show", self.tab.switch_to_window(tab)).await.unwrap();
        self.open(url).await;
    }

    /// Goes to a tab that is open; the others go on behind it.
    pub(crate) async fn go_to_tab(&self, number: usize) {
        let tabs = self.tab.windows().await.unwrap();
        soon("the tab to show", self.tab.switch_to_window(tabs[number].clone())).await.unwrap();
    }

    /// Ends it; a test that fails before that ends it as well, only less gently.
    pub(crate) async fn quit(self) {
        soon("the browser to end", self.tab.clone().quit()).await.unwrap();
    }

    /// What a script returns.
    pub(crate) async fn script(&self, script: &str) -> serde_json::Value {
        self.tab.execute(script, Vec::new()).await.unwrap().json().clone()
    }

    /// The first element that fits and is shown, once there is one.
    pub(crate) async fn find(&self, css: &str) -> WebElement {
        self.sought(css, &|_| true).await
    }

    /// The first that has this text in it.
    pub(crate) async fn find_saying(&self, css: &str, words: &str) -> WebElement {
        self.sought(css, &|text| text.contains(words)).await
    }

    async fn sought(&self, css: &str, fits: &(dyn Fn(&str) -> bool + Sync)) -> WebElement {
        let mut seen = String::new();
        let looking = async {
            loop {
                for element in self.tab.find_all(By::Css(css)).await.unwrap() {
                    // It may have been replaced since: then it is looked for anew.
                    let Ok((true, text)) = shown(&element).await else { continue };
                    if fits(&text) {
                        return element;
                    }
                    seen = text;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(element) => element,
            Err(_) => {
                let page = self.find_all_text("body").await;
                panic!("no {css} that fits; last seen: {seen:?}; the page: {page}")
            }
        }
    }

    async fn find_all_text(&self, css: &str) -> String {
        let body = self.tab.find(By::Css(css)).await.unwrap();
        body.text().await.unwrap_or_default()
    }

    /// Whether nothing like that is shown, now.
    pub(crate) async fn lacks(&self, css: &str) -> bool {
        for element in self.tab.find_all(By::Css(css)).await.unwrap() {
            if matches!(element.is_displayed().await, Ok(true)) {
                return false;
            }
        }
        true
    }

    /// Waits until nothing like that is shown.
    pub(crate) async fn gone(&self, css: &str) {
        soon(&format!("{css} to go"), async {
            while !self.lacks(css).await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// Clicks the button, or link, that says so.
    pub(crate) async fn press(&self, words: &str) {
        self.press_in("", words).await;
    }

    /// Clicks it where there are several: within what `css` names. The page may redraw it meanwhile.
    pub(crate) async fn press_in(&self, css: &str, words: &str) {
        let css = format!("{css} button, {css} a");
        soon(&format!("{words:?} to be clicked"), async {
            while self.find_saying(&css, words).await.click().await.is_err() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// Presses keys, wherever the focus is.
    pub(crate) async fn keys(&self, keys: impl AsRef<str>) {
        self.tab.action_chain().send_keys(keys.as_ref()).perform().await.unwrap();
    }

    pub(crate) async fn escape(&self) {
        self.keys(Key::Escape.value().to_string()).await;
    }

    /// What has the focus: its tag, and its text.
    pub(crate) async fn focus(&self) -> (String, String) {
        let element = self.tab.active_element().await.unwrap();
        (element.tag_name().await.unwrap(), element.text().await.unwrap())
    }

    /// What the page complained about since the last time.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.tab.browser_log().await.unwrap();
        log.into_iter().map(|entry| entry.message).collect()
    }
}

/// A session that nobody says goodbye to when its test has failed: its driver is about to be killed,
/// and to wait for an answer would hold up the thread that is to do so.
struct Tab(WebDriver);

impl std::ops::Deref for Tab {
    type Target = WebDriver;

    fn deref(&self) -> &WebDriver {
        &self.0
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // After an orderly end there is nothing to give up.
        let _ = self.0.clone().leak();
    }
}

async fn shown(element: &WebElement) -> WebDriverResult<(bool, String)> {
    Ok((element.is_displayed().await?, element.text().await?))
}

/// On a port of its own choice, which it tells.
async fn start_driver() -> (Child, u16) {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("no chromedriver, which tests/run installs (Debian: chromium-driver): {error}")
        });
    let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = soon("chromedriver to start", async {
        loop {
            let line = said.next_line().await.unwrap().expect("chromedriver to say its port");
            let port =
                line.split("successfully on port ").nth(1).map(|rest| rest.trim_end_matches('.'));
            if let Some(port) = port.and_then(|port| port.parse().ok()) {
                return port;
            }
        }
    })
    .await;
    // It goes on talking, and must not be held up.
    tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    (driver, port)
}

fn capabilities(profile: &TempDir) -> Capabilities {
    let mut capabilities = DesiredCapabilities::chrome();
    for argument in ARGUMENTS {
        capabilities.add_arg(argument).unwrap();
    }
    capabilities.add_arg(&format!("--user-data-dir={}", profile.path().display())).unwrap();
    let mut capabilities = Capabilities::from(capabilities);
    // All that the console gets, errors of the content security policy among it.
    capabilities.set("goog:loggingPrefs", json!({ "browser": "ALL" })).unwrap();
    capabilities
}
