"""The style of what only the doctor's page shows."""

STYLE = """
.heat { fill: var(--heat); shape-rendering: crispEdges; }
.bars { fill: var(--heat); } .heat .self { fill: var(--line); fill-opacity: .6; } .heat text.on { fill: var(--ink); }
.heat text.in { fill: var(--panel); } svg.matrix { width: auto; max-width: none; }
.classes { list-style: none; margin: 0; padding: 0; columns: 20rem; column-gap: 2rem; }
.classes li { display: grid; grid-template-columns: 7.5rem 1fr; gap: .6rem; align-items: center; padding: .22rem 0;
  break-inside: avoid; } .classes b { font-weight: 500; overflow-wrap: anywhere; line-height: 1.2; font-size: .9rem; }
.classes p { display: flex; align-items: center; gap: .4rem; margin: 0; font-size: .74rem; line-height: 1.15;
  color: var(--quiet); font-variant-numeric: tabular-nums; } .classes p i { height: .5rem; border-radius: 2px; min-width: 1px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; align-items: start; }
figure img { border-radius: 8px; display: block; max-width: 100%; height: auto; }
.gallery img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--panel); } figcaption { color: var(--quiet); font-size: .82rem; overflow-wrap: anywhere; margin-top: .3rem; }
figcaption b { color: var(--ink); font-weight: 600; margin-right: .3rem; }
section { border-left: 4px solid var(--kind); padding: .8rem 1.1rem; margin: .8rem 0; }
section h3 { margin: 0; } section h3 b { color: var(--kind); font-weight: 600; }
.cases { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: .7rem; } .cases figure { max-width: 30rem; }
.cases img { display: inline-block; }
@media print { .gallery { grid-template-columns: repeat(3, 1fr); } }
"""
