"""core.js in a real browser: what people write stays text, whatever it looks like."""

from typing import Any

import pytest

from tests.browser import Watched
from tests.pages.conftest import OpenPage

pytestmark = pytest.mark.browser
HOSTILE = [
    "<img src=x onerror=window.pwned=1>",
    "</title><script>window.pwned=1</script>",
    '"><svg onload=window.pwned=1>',
    "' onfocus=window.pwned=1 autofocus='",
    "`${window.pwned=1}`",
    "{{constructor.constructor('window.pwned=1')()}}",
    "&lt;b&gt; &amp;",
]


def run(open_page: OpenPage, script: str, argument: Any = None) -> Any:
    page = open_page("/login")
    page.wait_for_selector("h1")
    core = page.evaluate("document.querySelector('link[href$=\"core.js\"]').href")
    return page.evaluate(f"async (argument) => {{ const core = await import('{core}'); {script} }}", argument)


def test_hostile_text_stays_text(open_page: OpenPage) -> None:
    script = """
        const { html, render } = core;
        const seen = [];
        for (const text of argument) {
            const box = document.createElement("div");
            document.body.append(box);
            render(box, html`<p title="${text}">${text}</p><ul>${[text, html`<li>${text}</li>`]}</ul>`);
            await new Promise((done) => setTimeout(done, 50));
            seen.push([box.querySelector("p").title, box.querySelector("p").textContent,
                box.querySelector("li").textContent, box.querySelectorAll("*").length, window.pwned ?? null]);
        }
        return seen;
    """
    assert run(open_page, script, HOSTILE) == [[text, text, text, 3, None] for text in HOSTILE]


def test_addresses_that_run_programs_are_dropped_and_others_stay(open_page: OpenPage) -> None:
    bad = ["javascript:window.pwned=1", " java\nscript:alert(1)", "JAVASCRIPT:1", "data:text/html,<script>1</script>"]
    good = ["/models?id=1&x=2", "https://example.org/", "data:image/webp;base64,UklG", "database"]
    script = """
        const { fragment, html } = core;
        return argument.map((url) => fragment(html`<a href="${url}">x</a>`).getAttribute("href"));
    """
    assert run(open_page, script, bad + good) == ["#"] * len(bad) + good


def test_unsafe_templates_are_refused(open_page: OpenPage) -> None:
    script = """
        const attempts = [() => core.html`<a title=${"x y"}>x</a>`, () => core.html`<a onclick="go('${"x"}')">x</a>`];
        return attempts.map((attempt) => { try { attempt(); return "made"; } catch (error) { return error.message; } });
    """
    quoted, event = run(open_page, script)
    assert quoted.startswith("Quote the attribute")
    assert event.startswith("No values in event attributes")


def test_drawing_again_keeps_focus_text_and_order(open_page: OpenPage) -> None:
    script = """
        const { html, render } = core;
        const box = document.createElement("div");
        document.body.append(box);
        const item = (name) => html`<b data-key="${name}">${name}</b>`;
        const draw = (names) => render(box, html`<input value="${names.length}">${names.map(item)}`);
        draw(["a", "b", "c"]);
        const input = box.querySelector("input"), b = box.querySelector("[data-key=b]");
        input.focus();
        input.value = "typed";
        draw(["c", "b", "d", "a"]);
        return [document.activeElement === input, input.value, box.querySelector("[data-key=b]") === b,
            [...box.querySelectorAll("b")].map((one) => one.textContent).join("")];
    """
    assert run(open_page, script) == [True, "typed", True, "cbda"]


def test_a_refused_call_tells_code_message_and_field(open_page: OpenPage, watched: Watched) -> None:
    watched.expected += ["/api/auth/login", "/api/nothing"]
    script = """
        const seen = [];
        const json = { email: "a@b.cd", password: "wrong wrong" };
        for (const call of [() => core.api("/api/auth/login", { json }), () => core.api("/api/nothing")]) {
            try { await call(); } catch (error) { seen.push([error.name, error.status, error.code, error.message]); }
        }
        return seen;
    """
    refused, unknown = run(open_page, script)
    assert refused[:2] == ["ApiError", 401]
    assert refused[3].startswith("Invalid credentials")
    assert unknown[:3] == ["ApiError", 404, "not_found"]
