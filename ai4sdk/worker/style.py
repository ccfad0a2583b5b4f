"""How a report looks: light, dark and on paper."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink:#1c2430; --quiet:#5d6878; --line:#dfe4ea; --page:#f6f7f9; --card:#fff;
  --accent:#0072b2; --bar:#cfe3f1; --good:#00714f; --bad:#b03a06; --note:#fff6e0; --note-line:#e0b040; }
@media (prefers-color-scheme: dark) { :root { --ink:#e4e8ee; --quiet:#9aa5b4; --line:#323a46; --page:#14181e;
  --card:#1c222b; --accent:#66b5e8; --bar:#1f4660; --good:#4fc79a; --bad:#f08c5a; --note:#2d2716; --note-line:#8a6d1f; }
  figure img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; } }
* { box-sizing: border-box }
body { margin:0 auto; max-width:1080px; padding:2.5rem 1.25rem 3rem; background:var(--page); color:var(--ink);
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Helvetica, Arial, sans-serif; }
h1 { font-size:2rem; line-height:1.2; margin:.1rem 0 .5rem; overflow-wrap:anywhere }
h2 { font-size:1.15rem; margin:0 0 .9rem } h3 { font-size:1rem; margin:1rem 0 .4rem }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size:.86em;
  overflow-wrap:anywhere }
pre { margin:0; padding:.55rem .75rem; background:var(--page); border:1px solid var(--line); border-radius:6px;
  white-space:pre-wrap }
.eyebrow { margin:0; color:var(--quiet); font-size:.8rem; letter-spacing:.08em; text-transform:uppercase }
.lead { margin:.2rem 0 .6rem; font-size:1.05rem; max-width:48rem } .quiet { color:var(--quiet) }
.facts { display:flex; flex-wrap:wrap; gap:.3rem 1.2rem; margin:.2rem 0 1.6rem; color:var(--quiet) }
.state { display:inline-block; vertical-align:middle; margin-left:.4rem; padding:.1rem .65rem; border-radius:99px;
  border:1px solid currentColor; font-size:.85rem; font-weight:600; color:var(--quiet) }
.state.succeeded { color:var(--good) } .state.failed, .state.interrupted, .state.cancelled { color:var(--bad) }
section { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:1.25rem 1.4rem;
  margin:0 0 1.1rem }
section.notes { background:var(--note); border-color:var(--note-line) } .notes ul { margin:0; padding-left:1.2rem }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(150px, 1fr)); gap:.8rem; margin-bottom:.8rem }
.tile { border:1px solid var(--line); border-radius:8px; padding:.7rem .9rem; display:flex; flex-direction:column }
.tile b { font-size:1.65rem; line-height:1.2; font-variant-numeric:tabular-nums; color:var(--accent) }
.tile small { color:var(--quiet) }
.figures { display:grid; grid-template-columns:repeat(2, minmax(0, 1fr)); gap:1.2rem; align-items:start }
figure { margin:0; min-width:0 } figure.wide { grid-column:1 / -1 }
figure img { display:block; width:100%; height:auto; max-height:640px; object-fit:contain; object-position:left top }
figcaption { color:var(--quiet); font-size:.88rem; margin-top:.3rem }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100%; font-size:.92rem }
th { text-align:left; color:var(--quiet); font-weight:600 }
.n { text-align:right; white-space:nowrap; font-variant-numeric:tabular-nums }
th, td { padding:.32rem .6rem; border-bottom:1px solid var(--line); vertical-align:top; overflow-wrap:break-word }
td { max-width:30rem }
tbody tr:last-child td { border-bottom:0 }
.bar { display:inline-block; min-width:5.5rem; padding:0 .35rem; border-radius:3px;
  background:linear-gradient(to right, var(--bar) calc(var(--share) * 100%), transparent 0) }
dl { margin:0 }
.facts-list { display:grid; grid-template-columns:minmax(7rem, max-content) minmax(0, 1fr); gap:.25rem 1.2rem }
dt { color:var(--quiet) } dd { margin:0; overflow-wrap:anywhere }
.steps dt { margin-top:.6rem } .steps dt:first-child { margin-top:0 }
details { margin-top:.9rem } summary { cursor:pointer; color:var(--accent) } details > .scroll { margin-top:.6rem }
footer { color:var(--quiet); font-size:.85rem; margin-top:1.4rem }
@media (max-width:720px) { .figures { grid-template-columns:minmax(0, 1fr) } }
@media print { body { background:#fff; max-width:none; padding:0 } section { break-inside:avoid; border-color:#ccc } }
"""
