//! A headless Chromium, driven over a pipe by the DevTools protocol.
//!
//! It keeps account of all that a page must not do: errors, and requests to anybody but the
//! server. `--remote-debugging-pipe` takes commands at descriptor 3 and answers at 4, each a
//! JSON text that ends in a zero byte; a shell puts the child's pipes there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{Deadline, poll, skipped};

/// How long the browser may take to answer, on a busy machine.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// A browser with one page, killed when dropped.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    next_id: u64,
    session: Option<String>,
    events: Vec<Value>,
    /// Its profile goes with it.
    _profile: TempDir,
}

impl Browser {
    /// Starts one; `None`, and said so, if this machine has none.
    pub(crate) fn start() -> Option<Browser> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let Some(program) = names.into_iter().find(|name| runs(name)) else {
            skipped("there is no Chromium here (Debian: apt-get install chromium)");
            return None;
        };
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = Command::new("sh")
            .args(["-c", REDIRECT, program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let commands = child.stdin.take().expect("piped");
        let answers = messages(child.stdout.take().expect("piped"));
        let mut browser = Browser {
            child,
            commands,
            answers,
            next_id: 0,
            session: None,
            events: Vec::new(),
            _profile: profile,
        };
        browser.attach();
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let wanted = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", wanted);
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime", "Log", "Network", "Page"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.size(1400, 1250);
    }

    /// Gives the page so many pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Opens an address.
    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The theme that the system asks for.
    pub(crate) fn prefer(&mut self, theme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": theme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// Presses and releases a key.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Clicks on the first element that a selector finds.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        self.value(&format!("document.querySelector('{selector}').click()"));
    }

    /// Gives a field or a choice a value, as typing or choosing would.
    #[track_caller]
    pub(crate) fn enter(&mut self, id: &str, value: &str) {
        self.value(&format!(
            "(() => {{ const field = document.getElementById('{id}'); field.value = {}; \
             for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind)); }})()",
            json!(value)
        ));
    }

    /// What an expression is in the page.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let wanted = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.call("Runtime.evaluate", wanted);
        let failed = &found["exceptionDetails"];
        assert!(failed.is_null(), "{expression}: {failed}");
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, expression: &str) {
        poll(ANSWER_TIME, expression, || {
            (self.value(expression) == true).then_some(())
        });
    }

    /// A picture of what is to be seen: PNG in base64.
    pub(crate) fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        picture["data"].as_str().expect("a picture").to_owned()
    }

    /// Checks that the page has reported no error, and asked nobody but the server at `origin`.
    #[track_caller]
    pub(crate) fn assert_clean(&mut self, origin: &str) {
        // An answer to a command comes after the events before it.
        self.value("0");
        let mut asked = 0;
        for event in &self.events {
            let params = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => panic!("an exception: {params}"),
                "Runtime.consoleAPICalled" => panic!("the console was written to: {params}"),
                "Log.entryAdded" => panic!("a fault was logged: {params}"),
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    assert!(url.starts_with(origin), "a request elsewhere: {url}");
                    asked += 1;
                }
                _ => {}
            }
        }
        assert!(asked > 3, "the browser tells of requests");
    }

    /// Gives a command and waits for its answer; keeps the events that come before it.
    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let mut command = json!({"id": self.next_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands
            .write_all(&bytes)
            .expect("a browser that lives");
        let deadline = Deadline::after(ANSWER_TIME);
        loop {
            let left = deadline.left(method);
            let message = self.answers.recv_timeout(left);
            let message = message.unwrap_or_else(|e| panic!("no answer to {method}: {e}"));
            if message["id"] == self.next_id {
                let error = &message["error"];
                assert!(error.is_null(), "{method}: {error}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone. Its other processes end when it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runs(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Reads what ends in zero bytes, for as long as there is somebody to read it.
fn messages(pipe: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for message in BufReader::new(pipe).split(0) {
            let Ok(bytes) = message else { return };
            let message = serde_json::from_slice(&bytes).expect("JSON from the browser");
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}

const REDIRECT: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

const FLAGS: [&str; 9] = [
    "--headless",
    "--remote-debugging-pipe",
    // The tests may run as root, where there is no sandbox; the page is our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
];
