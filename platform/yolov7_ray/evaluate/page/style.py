"""Style and script of what only pages of runs and evaluations show."""

from pathlib import Path

from ...jobs.page.document import SORTED_TABLES

SCRIPT = SORTED_TABLES + Path(__file__).with_name("page.js").read_text()

STYLE = """
.line path { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .line circle { stroke: none; }
.l0 path { stroke: var(--s0); } .l1 path { stroke: var(--s1); } .l2 path { stroke: var(--s2); } .l3 path { stroke: var(--s3); }
.l0 circle, .l0 .dot { fill: var(--s0); } .l1 circle, .l1 .dot { fill: var(--s1); } .l2 circle, .l2 .dot { fill: var(--s2); }
.l3 circle, .l3 .dot { fill: var(--s3); } .line.thin path { stroke-dasharray: 4 3; stroke-width: 1.4; } .legend i.thin { opacity: .55; }
svg .cursor { stroke: var(--quiet); fill: none; } svg .mark { stroke: var(--quiet); stroke-dasharray: 3 3; fill: none; }
svg text.name { fill: var(--ink); font-size: 11px; } .reads { touch-action: pan-y; } .charts .legend { margin: .5rem 0 0; }
.reading, .values { min-height: 1.4rem; font-variant-numeric: tabular-nums; }
.controls { display: flex; flex-wrap: wrap; gap: .6rem 1.4rem; align-items: center; margin: 0 0 1rem; font-size: .9rem; }
.controls label { display: flex; gap: .5rem; align-items: center; } .controls input[type=range] { width: min(20rem, 60vw); accent-color: var(--s0); }
select, .controls button { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--line);
  border-radius: 8px; padding: .2rem .5rem; max-width: 60vw; } .controls output { font-variant-numeric: tabular-nums; min-width: 2.4rem; }
.confusion { width: auto; max-width: none; } .confusion rect.cell { fill: var(--heat); } .confusion rect.cell.off { fill: var(--error); }
.confusion g[data-pair] { cursor: pointer; } .confusion g[data-pair]:hover rect, .confusion g.kept rect { stroke: var(--ink); stroke-width: 1.5; }
.confusion text.on { fill: var(--ink); } .confusion text.in { fill: var(--panel); }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.case { margin: 0; padding: .6rem; } .case[hidden] { display: none; } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; }
.pair svg { margin: 0; border-radius: 6px; background: var(--line); } figcaption { color: var(--quiet); font-size: .82rem;
  overflow-wrap: anywhere; margin-top: .4rem; } figcaption b { color: var(--ink); font-weight: 600; margin-right: .3rem; }
.box { --box: #00c389; } .box.missed { --box: #ff4b3a; } .box.confused { --box: #ffab1a; } .box.placed { --box: #45b6ff; }
.box.duplicate { --box: #ec8fc9; } .box.ignored { --box: #d8d8d8; }
.box rect { fill: none; stroke: var(--box); stroke-width: 2; } .box.ignored rect { stroke-dasharray: 3 3; }
.box rect:hover { fill: var(--box); fill-opacity: .2; } svg .box text { fill: var(--box); font-size: 12px; font-weight: 600;
  paint-order: stroke; stroke: rgb(0 0 0 / .75); stroke-width: 3px; pointer-events: none; }
.legend i.right { background: #00c389; } .legend i.missed { background: #ff4b3a; } .legend i.confused { background: #ffab1a; }
.legend i.placed { background: #45b6ff; } .legend i.duplicate { background: #ec8fc9; } .legend i.ignored { background: #d8d8d8; }
.stages { list-style: none; margin: .4rem 0 0; padding: 0; } .stages li { display: grid; grid-template-columns: 8rem 1fr 5rem; gap: .6rem;
  align-items: center; padding: .2rem 0; font-size: .9rem; } .stages i { background: var(--s0); height: .7rem; border-radius: 3px; min-width: 2px; }
.stages li.part { color: var(--quiet); font-size: .82rem; } .stages li.part i { background: var(--s1); } .stages span { text-align: right; font-variant-numeric: tabular-nums; }
.picture img { width: 100%; height: auto; border-radius: 8px; display: block; } .plain th.number { text-align: right; }
pre { overflow-x: auto; margin: .6rem 0 0; font-size: .85rem; line-height: 1.5; } details summary { cursor: pointer; color: var(--note); }
@media print { .controls { display: none; } .cases { grid-template-columns: 1fr 1fr; } }
"""
