"""The style of what only a search's page shows."""

STYLE = """
.dot { fill: var(--panel); stroke: var(--quiet); stroke-width: 1.5; }
.dot.trained { fill: var(--quiet); }
.dot.open.hopeful { stroke: var(--s1); }
.dot.front { fill: var(--s0); stroke: var(--s0); }
.bar { fill: none; stroke: var(--quiet); stroke-width: 1.2; }
.bar.front { stroke: var(--s0); }
.joined { fill: none; stroke: var(--s0); stroke-width: 1.5; opacity: .7; }
.curve path { fill: none; stroke: var(--quiet); stroke-width: 1.2; opacity: .55; stroke-linejoin: round; }
.curve circle { fill: var(--quiet); }
.curve.front path { stroke: var(--s0); stroke-width: 2; opacity: 1; }
.curve.front circle { fill: var(--s0); }
.curve.hopeful path { stroke: var(--s1); opacity: .8; }
.curve.hopeful circle { fill: var(--s1); }
svg .mark { stroke: var(--quiet); stroke-dasharray: 3 3; opacity: .6; fill: none; }
svg .axis { stroke: var(--quiet); fill: none; }
svg text.name { fill: var(--ink); font-size: 11px; }
svg.parallel text.on { paint-order: stroke; stroke: var(--panel); stroke-width: 5px; font-size: 11.5px;
  fill: var(--ink); }
svg.parallel text.name { font-size: 12px; }
.charts .across { grid-column: 1 / -1; }
.curve.lit path, .curve.kept path { stroke: var(--s3); stroke-width: 3; opacity: 1; }
.curve.lit circle, .curve.kept circle { fill: var(--s3); }
.dot.lit, .dot.kept { stroke: var(--s3); fill: var(--s3); r: 6px; }
tr.lit td, tr.kept td { background: color-mix(in srgb, var(--s3) 16%, transparent); }
[data-trial] { cursor: pointer; }
.legend i.ring { background: none; border: 2px solid var(--s1); border-radius: 50%; }
.legend i.round { border-radius: 50%; }
.legend i.grey { background: var(--quiet); border-radius: 50%; }
.shares { list-style: none; margin: .8rem 0 0; padding: 0; }
.shares li { display: flex; gap: .6rem; align-items: center; padding: .3rem 0; font-size: .9rem; }
.shares b { flex: 0 0 40%; font-weight: 500; overflow-wrap: anywhere; line-height: 1.2; }
.shares i { background: var(--heat); height: .8rem; border-radius: 3px; min-width: 2px; }
.shares span { color: var(--quiet); }
.trials td, .trials th { white-space: nowrap; }
.trials th.number { text-align: right; }
.trials td.why { white-space: normal; min-width: 22rem; color: var(--quiet); }
.trials a, .card a { color: var(--note); }
.trials td:first-child { padding-left: .3rem; }
.failed { color: var(--error); }
pre { overflow-x: auto; margin: .6rem 0 0; font-size: .85rem; line-height: 1.6; }
@media print { .trials td.why { min-width: 0; }
  .trials { font-size: .7rem; } svg.parallel { min-width: 0 !important; } }
"""
