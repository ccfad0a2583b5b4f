"""The page for people at /api: what can be asked, with a form for it. Made of the Swagger description; pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["render_page"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem; color: #222 }
h2 { font-size: 1.1rem; margin: 2.5rem 0 0 } h2 code { font-size: 1rem }
label { display: grid; grid-template-columns: 12rem 1fr; gap: 0 1rem; margin: .5rem 0 }
small { grid-column: 2; color: #666 }
output { display: block; white-space: pre-wrap; overflow: auto; max-height: 30rem }
input, select { font: inherit; max-width: 100% } button { font: inherit; margin-top: .5rem }
"""
_SCRIPT = """
for (const form of document.forms) form.addEventListener("submit", async event => {
  event.preventDefault();
  const shown = form.querySelector("output"), body = new FormData();
  let url = form.dataset.path, query = new URLSearchParams();
  const headers = {};
  for (const input of form.elements) {
    if (!input.name || input.type === "checkbox" && !input.checked) continue;
    if (input.type === "file") { for (const file of input.files) body.append(input.name, file); continue }
    if (input.value === "") continue;
    const values = input.dataset.list ? input.value.split(",").map(value => value.trim()) : [input.value];
    for (const value of values)
      if (input.dataset.in === "path") url = url.replace(`{${input.name}}`, encodeURIComponent(value));
      else if (input.dataset.in === "header") headers[input.name] = value;
      else query.append(input.name, value);
  }
  shown.textContent = "…";
  const more = form.dataset.method === "POST" && [...body.keys()].length ? { body } : {};
  const asked = url + ([...query.keys()].length ? "?" + query : "");
  try {
    const answer = await fetch(asked, { method: form.dataset.method, headers, ...more });
    const kind = answer.headers.get("content-type") || "";
    const place = document.createElement("div");
    if (kind.startsWith("application/json"))
      place.textContent = JSON.stringify(await answer.json(), null, 2);
    else if (kind.startsWith("text/")) place.textContent = await answer.text();
    else {
      const link = URL.createObjectURL(await answer.blob());
      const tag = kind.startsWith("image/") ? "img" : "a";
      const about = { src: link, href: link, download: "answer", textContent: "download" };
      const made = Object.assign(document.createElement(tag), about);
      place.append(made);
    }
    shown.replaceChildren(`${answer.status} ${answer.statusText}\\n`, place);
  } catch (error) { shown.textContent = error }
});
"""


def render_page(swagger: Mapping[str, Any]) -> str:
    """Return the page."""
    title = escape(swagger["info"]["title"])
    base = swagger.get("basePath", "")
    forms = "".join(
        _form(method.upper(), base, path, operation)
        for path, operations in swagger["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p>For programs: <a href="{escape(base)}/swagger.json">swagger.json</a>.</p>{forms}'
        f"<script>{_SCRIPT}</script></html>"
    )


def _form(method: str, base: str, path: str, operation: Mapping[str, Any]) -> str:
    inputs = "".join(_input(parameter) for parameter in operation["parameters"] if parameter["in"] != "body")
    head = f"<h2><code>{method} {escape(base + path)}</code></h2><p>{escape(operation['summary'])}</p>"
    attributes = f'data-method="{method}" data-path="{escape(base + path, quote=True)}"'
    return f"{head}<form {attributes}>{inputs}<button>Ask</button><output></output></form>"


def _input(parameter: Mapping[str, Any]) -> str:
    name = escape(parameter["name"], quote=True)
    default = parameter.get("default", "")
    is_list = parameter.get("type") == "array"
    if is_list and isinstance(default, list):
        default = ", ".join(map(str, default))
    attributes = f'name="{name}" data-in="{parameter["in"]}"' + (' data-list="1"' if is_list else "")
    attributes += " required" if parameter.get("required") else ""
    if parameter.get("type") == "file":
        field = f'<input type="file" {attributes}>'
    elif "enum" in parameter or parameter.get("type") == "boolean":
        choices = parameter.get("enum", ["true", "false"])
        chosen = str(default).lower() if "enum" not in parameter else default
        options = "".join(
            f"<option{' selected' if choice == chosen else ''}>{escape(str(choice))}</option>" for choice in choices
        )
        field = f"<select {attributes}>{'' if parameter.get('required') else '<option></option>'}{options}</select>"
    else:
        kinds = {parameter.get("type"), parameter.get("format")}
        kind = "number" if kinds & {"integer", "number"} else "text"
        step = ' step="any"' if "number" in kinds else ""
        field = f'<input type="{kind}"{step} value="{escape(str(default), quote=True)}" {attributes}>'
    told = escape(parameter.get("description", ""))
    return f"<label>{name}{'*' if parameter.get('required') else ''} {field}<small>{told}</small></label>"
