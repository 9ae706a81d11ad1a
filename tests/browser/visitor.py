"""Somebody who visits the pages of a server with Chromium.

usage: visitor.py [CERTIFICATE…]

The files are self-signed certificates, which the browser trusts (NSS's trust flag P). The visitor uses mouse and keyboard,
so what is hidden cannot be clicked. Requests come on standard input, one a line. Each is answered with a line, `ok …` or
`error: REASON`:

    open URL                    opens a page
    follow TEXT                 clicks on the visible link or button with this text, which leads to another page
    press TEXT                  clicks on one that does not
    type FIELD TEXT             replaces what is in the field of a form
    device desktop|android|iphone    from the next page on
    screenshot NAME             saves the page as /screenshots/NAME.png
    page                        JSON of the page: `url`, `status`, `title`, `text` (what is visible), `font`, `invalid`
                                (what the browser says about the field with the focus), `wide` (whether it is wider than
                                the window), `broken` (images without content) and `links`
    value FIELD                 what is in a field
    qr                          the text of the QR code that is visible
    traffic                     JSON of everything since the start or the last `traffic`: `origins` of all requests,
                                `failed` requests and `console` (errors, warnings and exceptions)
"""

import base64
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import zbar

PATIENCE = 40
SCREENSHOTS = Path("/screenshots")
ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 "
    "Mobile/15E148 Safari/604.1"
)
# Width and height of the window, whether it is a phone, and the browser that it claims to be.
DEVICES = {"desktop": (1280, 800, False, ""), "android": (412, 915, True, ANDROID), "iphone": (390, 844, True, IPHONE)}

PAGE = """({
    url: location.href,
    title: document.title,
    text: document.body.innerText.replace(/\\s+/g, " ").trim(),
    font: getComputedStyle(document.body).fontFamily,
    invalid: document.activeElement.validationMessage || "",
    wide: document.documentElement.scrollWidth > innerWidth,
    broken: [...document.images].filter(image => image.src && !image.naturalWidth).map(image => image.src),
    links: [...document.links].map(link => link.href),
})"""
# The element with this text that a click in its middle reaches.
FIND = """text => {
    const all = [...document.querySelectorAll("a, button, input")];
    for (const element of all.filter(element => (element.innerText ?? "").trim() === text || element.name === text)) {
        element.scrollIntoView({block: "center", behavior: "instant"});
        const box = element.getBoundingClientRect();
        const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
        if (element.contains(document.elementFromPoint(x, y))) return {x, y};
    }
}"""
# The pixels of a canvas, one byte each.
PIXELS = """() => {
    const canvas = document.querySelector("canvas");
    const image = [...document.images].find(image => image.src.startsWith("data:") && image.offsetParent);
    if (!canvas || !image) return null;
    const {width, height} = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    return {width, height, grey: [...data].filter((_, index) => index % 4 === 0)};
}"""


class Browser:
    """Chromium, by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) on a pipe."""

    def __init__(self, certificates):
        home = Path.home()
        database = home / ".pki/nssdb"
        database.mkdir(parents=True)
        certutil = ["certutil", "-d", f"sql:{database}"]
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
        for number, file in enumerate(certificates):
            subprocess.run([*certutil, "-A", "-t", "P,,", "-n", str(number), "-i", file], check=True)
        to_browser, self.requests = os.pipe()
        self.answers, from_browser = os.pipe()

        def as_expected():
            # Duplicates beyond 4 first, so that none of the two is overwritten.
            to, back = os.dup(to_browser), os.dup(from_browser)
            os.dup2(to, 3)
            os.dup2(back, 4)

        # A container lacks the privileges that the sandbox needs, and its /dev/shm is small.
        command = ["chromium-headless-shell", "--remote-debugging-pipe", "--no-sandbox", "--disable-dev-shm-usage"]
        subprocess.Popen(
            [*command, "--disable-gpu", "about:blank"],
            preexec_fn=as_expected,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.buffer = b""
        self.last, self.session = 0, None
        self.urls, self.status, self.open_requests, self.loaded = {}, None, set(), False
        self.origins, self.failed, self.console = set(), [], []
        self.frame = None
        (target,) = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.device("desktop")

    def message(self):
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], PATIENCE)[0]:
                raise TimeoutError("nothing from the browser")
            more = os.read(self.answers, 1 << 20)
            if not more:
                raise ConnectionError("the browser ended")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def send(self, method, **parameters):
        self.last += 1
        request = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.requests, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.note(message["method"], message.get("params", {}))

    def note(self, event, what):
        """Takes notice of an event."""
        match event:
            case "Network.requestWillBeSent":
                url = what["request"]["url"]
                if not url.startswith("data:"):
                    self.origins.add("/".join(url.split("/")[:3]))
                    self.urls[what["requestId"]] = url
                    self.open_requests.add(what["requestId"])
            case "Network.responseReceived":
                url, status = what["response"]["url"], what["response"]["status"]
                if what["type"] == "Document":
                    self.status = status
                elif status >= 400:
                    self.failed.append(f"{url}: {status}")
            case "Network.loadingFinished":
                self.open_requests.discard(what["requestId"])
            case "Network.loadingFailed":
                self.open_requests.discard(what["requestId"])
                self.failed.append(f"{self.urls.get(what['requestId'])}: {what['errorText']}")
            case "Page.loadEventFired":
                self.loaded = True
            case "Runtime.consoleAPICalled" if what["type"] in ("error", "warning", "assert"):
                self.console.append(" ".join(str(argument.get("value")) for argument in what["args"]))
            case "Runtime.exceptionThrown":
                details = what["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if what["entry"]["level"] in ("error", "warning"):
                self.console.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")

    def evaluate(self, expression):
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait(self, what, is_done):
        """Waits until the condition holds, for each event or for answers of the page."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := is_done()):
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            self.evaluate("new Promise(resolve => setTimeout(resolve, 20))")
        return answer

    def leave(self, action):
        """Does something that leads to another page, and waits for that page and all that it loads."""
        self.loaded = False
        action()
        deadline = time.monotonic() + PATIENCE
        while not self.loaded or self.open_requests:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no other page; open requests: {[self.urls[r] for r in self.open_requests]}")
            message = self.message()
            self.note(message.get("method", ""), message.get("params", {}))

    def device(self, name):
        width, height, is_phone, agent = DEVICES[name]
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )
        agent = agent or self.send("Browser.getVersion")["userAgent"]
        self.send("Emulation.setUserAgentOverride", userAgent=agent)

    def open(self, url):
        def navigate():
            error = self.send("Page.navigate", url=url).get("errorText")
            if error:
                raise ConnectionError(f"{url}: {error}")

        self.leave(navigate)

    def click(self, text):
        where = self.evaluate(f"({FIND})({json.dumps(text)})")
        if not where:
            raise LookupError(f"nothing to click on with the text {text!r}")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def follow(self, *words):
        self.leave(lambda: self.click(" ".join(words)))

    def press(self, *words):
        self.click(" ".join(words))

    def type(self, field, *words):
        self.click(field)
        self.evaluate("document.activeElement.select()")
        self.send("Input.dispatchKeyEvent", type="rawKeyDown", key="Delete", windowsVirtualKeyCode=46)
        self.send("Input.dispatchKeyEvent", type="keyUp", key="Delete", windowsVirtualKeyCode=46)
        self.send("Input.insertText", text=" ".join(words))

    def value(self, field):
        return self.evaluate(f"document.querySelector({json.dumps(field)}).value")

    def screenshot(self, name):
        image = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(image))

    def page(self):
        return json.dumps({**self.evaluate(PAGE), "status": self.status})

    def qr(self):
        pixels = self.wait("a QR code", lambda: self.evaluate(f"({PIXELS})()"))
        image = zbar.Image(pixels["width"], pixels["height"], "Y800", bytes(pixels["grey"]))
        zbar.ImageScanner().scan(image)
        return " ".join(symbol.data for symbol in image)

    def traffic(self):
        seen = {"origins": sorted(self.origins), "failed": self.failed, "console": self.console}
        self.origins, self.failed, self.console = set(), [], []
        return json.dumps(seen)


REQUESTS = ("open", "follow", "press", "type", "device", "screenshot", "page", "value", "qr", "traffic")

if __name__ == "__main__":
    SCREENSHOTS.mkdir()
    browser = Browser(sys.argv[1:])
    for line in sys.stdin:
        request, *arguments = line.split()
        try:
            assert request in REQUESTS, request
            print("ok", getattr(browser, request)(*arguments) or "", flush=True)
        except (AssertionError, LookupError, OSError, RuntimeError) as reason:
            print(f"error: {type(reason).__name__}: {reason}".replace("\n", " "), flush=True)
