"""The style that all pages share: light and dark, narrow and wide, on paper."""

STYLE = """
:root { --ground: #f6f5f2; --panel: #fff; --ink: #1d1c1a; --quiet: #75716a; --line: #e4e0d8; --error: #c8341f;
  --warning: #b7791f; --note: #4a7d9c; --heat: #0b6e99; --s0: #0b6e99; --s1: #d98a00; --s2: #00916a; --s3: #b65a92;
  color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ground: #161514; --panel: #201e1c; --ink: #eeebe5; --quiet: #9f998f;
  --line: #37332e; --error: #f0715e; --warning: #e0a84e; --note: #7fb2d0; --heat: #6cc4ec; --s0: #56b4e9;
  --s1: #e8a838; --s2: #3cc29a; --s3: #d98bbb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink); }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; letter-spacing: -.01em; }
h2 { margin: 2.6rem 0 .9rem; font-size: 1.25rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { margin: .2rem 0; } .quiet { color: var(--quiet); font-size: .87rem; overflow-wrap: anywhere; } code { overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tiles div, .card, section { background: var(--panel); border: 1px solid var(--line); border-radius: 12px; }
.tiles div { padding: .8rem 1rem; } .tiles b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; } .tiles span { display: block; }
.tiles small { color: var(--quiet); overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .5rem 1.1rem; align-items: center; } nav a { color: var(--note); text-decoration: none; }
nav a:hover { text-decoration: underline; } nav .chip { color: var(--kind); border: 1px solid var(--kind);
  border-radius: 99px; padding: 0 .7rem; font-size: .87rem; }
.card { margin: 0 0 1rem; padding: 1rem 1.1rem; break-inside: avoid; } .card h3 { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.charts .card { margin: 0; } svg { display: block; width: 100%; height: auto; margin-top: .5rem; }
svg text { font: 10.5px system-ui, sans-serif; fill: var(--quiet); } svg .grid { stroke: var(--line); fill: none; }
svg .frame { fill: none; stroke: var(--line); } .wide { overflow-x: auto; }
figure { margin: 0; break-inside: avoid; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin-bottom: .8rem; font-size: .87rem; color: var(--quiet); }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: 3px; margin-right: .4rem; }
.s0 { background: var(--s0); } .s1 { background: var(--s1); } .s2 { background: var(--s2); } .s3 { background: var(--s3); }
.error { --kind: var(--error); } .warning { --kind: var(--warning); } .note { --kind: var(--note); }
table.plain { border-collapse: collapse; width: 100%; margin-top: .6rem; font-size: .9rem; }
.plain th { text-align: left; font-weight: 500; color: var(--quiet); } .plain th, .plain td { padding: .35rem 1rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } .plain .number { text-align: right; font-variant-numeric: tabular-nums; }
.plain th button { all: unset; cursor: pointer; color: var(--quiet); font-weight: 500; white-space: nowrap; }
.plain th button:hover, .plain th button:focus-visible { color: var(--ink); text-decoration: underline; }
.plain th[aria-sort=descending] button::after { content: " ↓"; } .plain th[aria-sort=ascending] button::after { content: " ↑"; }
@media print { body { max-width: none; padding: 0; } nav { display: none; } * { print-color-adjust: exact; }
  .charts { grid-template-columns: repeat(3, 1fr); } }
"""
