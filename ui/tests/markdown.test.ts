import { describe, expect, it } from "vitest";

import { renderBlocks, sanitize } from "../src/lib/markdown";

function render(text: string): HTMLElement {
  const element = document.createElement("div");
  element.innerHTML = renderBlocks(text)
    .map(({ html }) => html)
    .join("");
  return element;
}

const ATTACKS = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg onload=alert(1)><script>alert(1)</script></svg>",
  '<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>',
  "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
  '<iframe src="javascript:alert(1)"></iframe>',
  '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  '<object data="data:text/html,<script>alert(1)</script>"></object>',
  '<embed src="javascript:alert(1)">',
  '<form action="javascript:alert(1)"><button>x</button></form>',
  '<button formaction="javascript:alert(1)">x</button>',
  '<a href="javascript:alert(1)">x</a>',
  '<a href="java\tscript:alert(1)">x</a>',
  '<a href="&#106;avascript:alert(1)">x</a>',
  "[x](javascript:alert(1))",
  "[x](JaVaScRiPt:alert(1))",
  "[x](data:text/html;base64,PHNjcmlwdD4=)",
  "[x](vbscript:msgbox)",
  "<javascript:alert(1)>",
  "![x](javascript:alert(1))",
  '![x](x" onerror="alert(1))',
  '[x](https://ok.example "t\\" onmouseover=\\"alert(1)")',
  "```\"><img src=x onerror=alert(1)>\ncode\n```",
  "```js\n</code></pre><img src=x onerror=alert(1)>\n```",
  "`<img src=x onerror=alert(1)>`",
  '<p style="background:url(https://evil.example/x)">x</p>',
  '<style>@import "https://evil.example";</style>',
  '<link rel=stylesheet href="https://evil.example">',
  '<meta http-equiv=refresh content="0;url=https://evil.example">',
  '<base href="https://evil.example">',
  '<video src="https://evil.example" autoplay onloadstart=alert(1)></video>',
  '<input type="image" src="https://evil.example" onfocus=alert(1) autofocus>',
  '<details open ontoggle=alert(1)>x</details>',
  '<div id="app" name="cookie">x</div>',
  "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
  "<template><img src=x onerror=alert(1)></template>",
];
const FORBIDDEN = "script,img,svg,math,iframe,object,embed,form,style,link,meta,base,video,audio,template,[id],[name],[style],[src],[srcdoc],[formaction]";

describe("what a model may write", () => {
  it.each(ATTACKS)("disarms %s", (attack) => {
    const around = [attack, `Text before\n\n${attack}`, `- ${attack}`, `| a |\n|---|\n| ${attack} |`];
    const sanitized = document.createElement("div");
    sanitized.innerHTML = sanitize(attack);
    for (const element of [sanitized, ...around.map(render)]) {
      expect(element.querySelector(FORBIDDEN)).toBeNull();
      for (const node of element.querySelectorAll("*")) {
        for (const { name, value } of node.attributes) {
          expect(name).not.toMatch(/^on/);
          expect(name === "href" ? value : "https:").toMatch(/^(https?:|mailto:)/i);
        }
      }
    }
  });

  it("opens links elsewhere, without a way back", () => {
    const link = render("[docs](https://example.org/a?b=1&c=2)").querySelector("a");
    expect(link?.getAttribute("href")).toBe("https://example.org/a?b=1&c=2");
    expect(link?.rel).toBe("noopener noreferrer nofollow");
    expect(link?.target).toBe("_blank");
  });

  it("shows an image as a link, so that nothing is fetched", () => {
    const link = render("![a fox](https://example.org/fox.png)").querySelector("a");
    expect(link?.textContent).toBe("a fox");
    expect(link?.getAttribute("href")).toBe("https://example.org/fox.png");
  });

  it("shows HTML as text, but for plain tags", () => {
    const element = render('H<sub>2</sub>O<br>x <b class="y">b</b>\n\n<div onclick="a()">d</div>');
    expect(element.querySelector("sub")?.textContent).toBe("2");
    expect(element.querySelector("br, b, div")?.nodeName).toBe("BR");
    expect(element.textContent).toContain('<b class="y">b');
    expect(element.textContent).toContain('<div onclick="a()">d</div>');
  });

  it("drops classes that could dress text up as part of the page", () => {
    expect(sanitize('<p class="failure">x</p>')).toBe("<p>x</p>");
  });
});

describe("renderBlocks", () => {
  it("gives code a name, a copy button and its text unchanged", () => {
    const element = render("```python title=x\nif a < b:\n    print('&amp;')\n```");
    expect(element.querySelector(".code-bar span")?.textContent).toBe("python");
    expect(element.querySelector(".code-copy")?.textContent).toBe("Copy code");
    expect(element.querySelector("pre code")?.textContent).toBe("if a < b:\n    print('&amp;')\n");
  });

  it("renders lists, tables and emphasis", () => {
    const element = render("1. **a**\n2. *b*\n\n| x | y |\n|---|---|\n| 1 | 2 |");
    expect(element.querySelectorAll("ol > li")).toHaveLength(2);
    expect(element.querySelector("li strong")?.textContent).toBe("a");
    expect(element.querySelectorAll(".table td")).toHaveLength(2);
  });

  it("gives the same result token by token as all at once", () => {
    const text =
      "# Title\n\nA paragraph\nof two lines.\n\n- one\n\n- two\n  ```js\n  a()\n\n  b()\n  ```\n\n> q\n\n```py\nx = 1\n\ny = 2\n```\r\n\r\nEnd **bold**.\n";
    let blocks = renderBlocks("");
    for (let length = 1; length <= text.length; length++) {
      blocks = renderBlocks(text.slice(0, length), blocks);
    }
    expect(blocks).toEqual(renderBlocks(text));
  });

  it("takes settled blocks over and renders the last one anew", () => {
    const first = renderBlocks("One.\n\nTwo.\n\nThr");
    const second = renderBlocks("One.\n\nTwo.\n\nThree.", first);
    expect(second[0]).toBe(first[0]);
    expect(second[2]).toBe(first[2]);
    expect(second.at(-1)?.html).toContain("Three.");
  });

  it("starts over when the text is another one", () => {
    const blocks = renderBlocks("New\n\ntext", renderBlocks("Old\n\ntext\n\nmore"));
    expect(blocks).toEqual(renderBlocks("New\n\ntext"));
  });
});
