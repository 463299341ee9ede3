"""What can be wrong with a page in a browser, as JavaScript that returns the wrong elements."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

OVERFLOWING = """() => [...document.querySelectorAll('body *')].filter(e => {
    if (e.closest('.wide, svg') && !e.matches('svg.chart')) return false
    const box = e.getBoundingClientRect()
    return box.width && (box.right > innerWidth + 1 || box.left < -1)
}).map(e => e.outerHTML.slice(0, 120))"""
"""Elements beyond the window. Wide tables scroll in a box of their own."""

CLIPPED = """() => [...document.querySelectorAll('svg.chart text')].filter(text => {
    const a = text.getBoundingClientRect(), b = text.ownerSVGElement.getBoundingClientRect()
    return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1
}).map(text => text.ownerSVGElement.getAttribute('aria-label') + ': ' + text.textContent)"""

OVERLAPPING = """() => [...document.querySelectorAll('svg.chart')].flatMap(svg => {
    const texts = [...svg.querySelectorAll('.tick, .name')].map(t => [t, t.getBoundingClientRect()])
    return texts.flatMap(([t, a], i) => texts.slice(i + 1).filter(([_, b]) =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2
    ).map(([u]) => svg.getAttribute('aria-label') + ': ' + t.textContent + ' / ' + u.textContent))
})"""

LOW_CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1)
        return [...canvas.getImageData(0, 0, 1, 1).data]
    }
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
        v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
    ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
    const behind = e => {
        for (; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor)
            if (colour[3] == 255) return colour
            if (colour[3]) throw Error('half transparent: ' + e.outerHTML.slice(0, 80))
        }
        throw Error('no background')
    }
    return [...document.querySelectorAll('body *')].filter(e =>
        [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) && e.getClientRects().length
    ).map(e => {
        const style = getComputedStyle(e)
        const colour = e.ownerSVGElement ? style.fill : style.color
        const [a, b] = [light(rgba(colour)), light(behind(e))].sort((x, y) => y - x)
        return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)]
    }).filter(([contrast]) => contrast < 4.5)
}"""


def opened(browser: Browser, path: Path, width: int, scheme: str = "light") -> Tab:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # pyright: ignore[reportArgumentType]
        accept_downloads=True,
    )
    tab = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    assert complaints == [], "the policy of the page refuses something, or a picture is broken"
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    return tab
