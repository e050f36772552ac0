"""The page's style sheet: light and dark, wide and narrow, on screen and paper."""

STYLE = """\
:root {
  --paper: #fbfbf9; --ink: #1d2125; --soft: #5b636b; --rule: #dcdedb; --raised: #f1f2ee;
  --right: #0072b2; --wrong: #d55e00; --right-rgb: 0 114 178; --wrong-rgb: 213 94 0;
  --on-strong: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e4e6e3; --soft: #9ba3aa; --rule: #30363b; --raised: #1c2125;
    --right: #56b4e9; --wrong: #f0a35e; --right-rgb: 86 180 233; --wrong-rgb: 240 163 94;
    --on-strong: #0b0e10;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
h1, h2 {
  font-family: "Iowan Old Style", Charter, "Palatino Linotype", Georgia, serif;
  font-weight: 600; line-height: 1.2; overflow-wrap: anywhere;
}
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); margin: 2.5rem 0 1rem; }
h2 { font-size: 1.4rem; margin: 0 0 .9rem; }
section { margin: 3rem 0; scroll-margin-top: 3.5rem; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .2em; }
nav {
  position: sticky; top: 0; z-index: 1; display: flex; gap: 1.4rem; overflow-x: auto;
  padding: .7rem 0; background: var(--paper); border-bottom: 1px solid var(--rule);
  font-size: .9rem; white-space: nowrap;
}
footer { padding-top: 1rem; padding-bottom: 3rem; color: var(--soft); font-size: .85rem; }

.result p { margin: 0; }
.accuracy { font-size: 1.1rem; }
.accuracy strong { font-size: clamp(2.8rem, 11vw, 4.2rem); line-height: 1; font-weight: 650;
  letter-spacing: -.02em; margin-right: .2rem; color: var(--right); white-space: nowrap; }
.bar { display: block; width: 100%; max-width: 30rem; height: 12px; margin: .9rem 0 .3rem; }
.bar .whole { fill: var(--rule); }
.bar .range { fill: var(--right); opacity: .4; }
.bar .value { fill: var(--right); }
.interval, .note, .remark { color: var(--soft); font-size: .92rem; }
.note { max-width: 46rem; }
.remark { margin: 0 0 1.2rem; max-width: 46rem; }
.result dl { display: flex; flex-wrap: wrap; gap: .8rem 2.4rem; margin: 1.4rem 0; }
.result dl div { display: flex; flex-direction: column-reverse; }
.result dt { color: var(--soft); font-size: .85rem; }
.result dd { margin: 0; font-size: 1.25rem; font-weight: 600; }

figure { margin: 0; }
figcaption { font-size: .9rem; }
.charts { display: grid; gap: 1.8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(17.5rem, 100%), 1fr)); }
.charts svg { display: block; width: 100%; height: auto; margin-top: .4rem; }
.charts figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--rule); }
svg .axis { stroke: var(--soft); }
svg .marked { stroke: var(--soft); stroke-dasharray: 1 4; stroke-width: 1.5;
  stroke-linecap: round; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .train polyline { stroke: var(--wrong); stroke-dasharray: 6 3; }
svg .train circle { fill: var(--wrong); }
svg .validation polyline, svg .rate polyline { stroke: var(--right); }
svg .validation circle, svg .rate circle { fill: var(--right); }
.key::before { content: ""; display: inline-block; width: 1.3em; margin-right: .4em;
  vertical-align: .25em; border-top: 2.5px solid var(--right); }
.key.train::before { border-top: 2.5px dashed var(--wrong); }
.key.right::before, .key.wrong::before { width: .8em; height: .8em; border: 0;
  vertical-align: -.05em; background: var(--right); }
.key.wrong::before { background: var(--wrong); }
.map .key { white-space: nowrap; margin-right: .9em; }

.scroll { overflow-x: auto; margin: 0 0 1.6rem; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; color: var(--soft); font-size: .88rem; padding-bottom: .5rem; }
th { text-align: left; font-weight: 500; }
thead th { color: var(--soft); font-size: .85rem; vertical-align: bottom; }
tbody th { min-width: 8rem; }
th, td { padding: .32rem 1.1rem .32rem 0; border-bottom: 1px solid var(--rule);
  overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
.meter { display: inline-block; min-width: 4.6rem; padding-bottom: 2px;
  background: linear-gradient(to right, var(--right) var(--share), var(--rule) 0)
  left bottom / 100% 3px no-repeat; }
.matrix tbody th { min-width: 0; }
.facts { width: 100%; table-layout: fixed; }
#settings { columns: 24rem 2; column-gap: 3rem; }
#settings h2 { column-span: all; }
.facts caption { color: var(--ink); font-weight: 600; font-size: 1rem; }
.facts tr { break-inside: avoid; }
.facts th { width: 42%; color: var(--soft); vertical-align: top; }

.matrix { border-collapse: separate; border-spacing: 2px; }
.matrix th, .matrix td { border: 0; padding: .25rem .4rem; }
.matrix td { text-align: center; min-width: 2.4rem; height: 2.4rem; border-radius: 3px; }
.matrix thead th { padding: 0; text-align: center; }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg);
  max-height: 9rem; }
.matrix th span { display: inline-block; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.matrix tbody span { max-width: 11rem; vertical-align: middle; }
.matrix tbody th { text-align: right; font-size: .88rem; position: sticky; left: 0;
  background: var(--paper); }
.matrix .none { color: var(--soft); background: var(--raised); opacity: .6; }
.matrix .right { background: rgb(var(--right-rgb) / var(--share)); }
.matrix .wrong { background: rgb(var(--wrong-rgb) / var(--share)); }
.matrix .strong { color: var(--on-strong); }
.map { margin-bottom: 1.6rem; }
.axes { display: grid; grid-template-columns: 1.3rem minmax(0, 38rem); gap: .3rem .4rem;
  margin-bottom: .7rem; }
.axes svg, .axes img { display: block; width: 100%; height: auto; background: var(--raised);
  border: 1px solid var(--rule); }
.axes .right { fill: var(--right); }
.axes .wrong { fill: var(--wrong); }
.axes span { color: var(--soft); font-size: .85rem; text-align: center; }
.axes .y { writing-mode: vertical-rl; transform: rotate(180deg); }
.axes .x { grid-column: 2; }
.map figcaption { color: var(--soft); max-width: 40rem; }

.mistakes { display: grid; gap: 1.3rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 100%), 1fr)); }
.mistakes img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--raised); border-radius: 4px; }
.mistakes .pixels { image-rendering: pixelated; }
.mistakes figcaption { display: flex; flex-direction: column; margin-top: .4rem;
  line-height: 1.35; overflow-wrap: anywhere; }
.mistakes .taken b { color: var(--wrong); }
.mistakes .file { color: var(--soft); font-size: .78rem; }
details > summary { cursor: pointer; margin-bottom: .8rem; }
@media (max-width: 30rem) {
  .mistakes { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print {
  nav { display: none; }
  section { break-inside: avoid-page; }
  .scroll { overflow: visible; }
}
"""
