"""How a page looks: one neutral style sheet, light or dark as the reader's system is."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1d1c1a; --soft: #6d6a65; --line: #e4e2de;
  --bar: #4a6fa5; --good: #4a8a63; --bad: #b5493a; --mark: #b07b1e; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181a; --card: #1f2123; --ink: #e9e7e3; --soft: #9b9892; --line: #34363a;
  --bar: #7fa3d8; --good: #7bbd95; --bad: #e07a68; --mark: #d9a94c; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 1240px; padding: 40px 28px 80px; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -0.01em; }
h2 { margin: 56px 0 4px; font-size: 20px; font-weight: 650; }
h3 { margin: 28px 0 8px; font-size: 15px; font-weight: 650; }
p { margin: 4px 0 12px; max-width: 76ch; }
p, figcaption span, .soft { color: var(--soft); }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 0 0; color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px; margin: 26px 0 0;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.tiles div { padding: 14px 16px; box-shadow: 0 0 0 1px var(--line); }
.tiles b { display: block; font-size: 22px; line-height: 1.25; font-weight: 620; }
.tiles span { color: var(--soft); font-size: 12.5px; display: block; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(350px, 100%), 1fr)); gap: 22px 28px; margin: 16px 0 0; }
.grid.wide { grid-template-columns: repeat(auto-fill, minmax(min(520px, 100%), 1fr)); }
.grid > * { min-width: 0; }
.chart { margin: 0; }
.chart figcaption b { display: block; font-weight: 620; }
.chart figcaption span { display: block; font-size: 12.5px; }
.chart svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { font-size: 11px; fill: var(--soft); }
svg .bar { fill: var(--bar); }
svg .axis { stroke: var(--soft); fill: none; }
svg .guide { stroke: var(--line); fill: none; }
svg path.median { stroke: var(--ink); fill: none; }
svg text.median { fill: var(--ink); }
svg path.rule { stroke: var(--bad); stroke-dasharray: 3 3; fill: none; }
svg text.rule { fill: var(--bad); }
table { border-collapse: collapse; width: 100%; margin: 6px 0; }
th, td { text-align: left; padding: 4px 14px 4px 0; vertical-align: top; font-weight: 400; }
.bars th { width: 30%; } .bars.wide th { width: 55%; }
.bars td { width: 1%; text-align: right; white-space: nowrap; padding: 4px 0 4px 14px; color: var(--soft); }
.bars td:nth-child(3) { color: var(--ink); }
.bars td.bar { width: auto; padding-left: 4px; }
.bars i { display: block; height: 11px; margin-top: 5px; min-width: 1px; border-radius: 1px; background: var(--bar); }
.bars i.good { background: var(--good); } .bars i.bad { background: var(--bad); }
.rows th { border-bottom: 1px solid var(--line); color: var(--soft); font-size: 12.5px; }
.rows td { border-bottom: 1px solid var(--line); }
.rows .number { text-align: right; white-space: nowrap; }
.clip { margin: 0 0 22px; padding: 0; }
.clip figcaption { display: flex; flex-wrap: wrap; gap: 0 14px; margin-bottom: 5px; align-items: baseline; }
.clip figcaption b { font-weight: 620; }
.clip figcaption span { font-size: 12.5px; }
.clip figcaption .no { color: var(--bad); } .clip figcaption .yes { color: var(--good); }
.film { display: flex; gap: 4px; background: #000; border-radius: 4px; overflow: hidden; }
.clip .body { width: fit-content; max-width: 100%; }
.film img { display: block; width: 100%; height: auto; min-width: 0; }
.film > * { min-width: 0; }
.profile { display: block; width: 0; min-width: 100%; height: 22px; margin-top: 3px; border-bottom: 1px solid var(--line); }
.profile rect { fill: var(--bar); } .profile rect.out { fill: var(--bad); opacity: 0.75; }
.pair { display: flex; flex-wrap: wrap; gap: 10px 14px; margin: 8px 0 26px; }
.pair figure { margin: 0; max-width: 260px; }
.pair img { display: block; border-radius: 4px; max-width: 100%; }
.pair figcaption { font-size: 12.5px; margin-top: 4px; }
.key { max-width: none; } .key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px -1px 12px; }
.key i:first-child { margin-left: 0; }
.none { font-style: italic; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px; }
@media (prefers-reduced-motion: reduce) { .moving { display: none; } }
@media print { .moving { display: none; } body { max-width: none; } .clip, .chart { break-inside: avoid; } }
"""
