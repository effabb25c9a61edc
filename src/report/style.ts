/**
 * The report's style sheet: system fonts, light and dark, one column on a phone. Figures draw with the
 * variables set here.
 */
export const STYLE = `
:root { color-scheme: light dark; --page: #f6f6f4; --surface: #ffffff; --ink: #1c1d1f; --muted: #64686e; --line: #e7e7e3; --axis: #b5b7b3;
  --accent: #2563c9; --second: #8a4bb0; --reference: #b4530a; --warn: #fdf3e3; --warn-line: #e0a64b; --good: #17795e;
  --v1: #0072b2; --v2: #d55e00; --v3: #00845f; --v4: #b4558f; --v5: #a87400; --v6: #3a8fc0; --v7: #3d3f43; --v8: #7a6a00; }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --surface: #1c1e21; --ink: #eceded; --muted: #9ba1a8; --line: #2c2f33; --axis: #51565c;
  --accent: #7ab0ff; --second: #cf9bea; --reference: #f0a35e; --warn: #2b2417; --warn-line: #97702c; --good: #5fcfae;
  --v1: #4fa3e0; --v2: #f0813a; --v3: #33c296; --v4: #e08dbd; --v5: #f0b429; --v6: #8fd0f5; --v7: #d6d8da; --v8: #d8cf4a; } }
@media print { :root { color-scheme: light; --page: #ffffff; --surface: #ffffff; --ink: #1c1d1f; --muted: #50545a; --line: #e7e7e3; --axis: #b5b7b3;
  --accent: #2563c9; --second: #8a4bb0; --reference: #b4530a; --warn: #fdf3e3; --warn-line: #e0a64b; --good: #17795e;
  --v1: #0072b2; --v2: #d55e00; --v3: #00845f; --v4: #b4558f; --v5: #a87400; --v6: #3a8fc0; --v7: #3d3f43; --v8: #7a6a00; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: clamp(1.6rem, 4vw, 2.2rem); line-height: 1.2; letter-spacing: -.015em; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0 0 4px; }
h3 { font-size: .95rem; margin: 0 0 2px; overflow-wrap: anywhere; }
section { margin-top: 52px; scroll-margin-top: 16px; }
section > h3 { font-size: 1.02rem; margin: 26px 0 8px; }
section > h3.clip { margin: 22px 0 0; }
p { margin: 0 0 14px; max-width: 46rem; }
a { color: var(--accent); text-underline-offset: .15em; text-decoration-thickness: 1px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.lead { font-size: 1.08rem; color: var(--muted); }
.muted, figcaption { color: var(--muted); font-size: .88rem; line-height: 1.45; }
p.muted { max-width: 60rem; }
p.under { margin-top: 10px; }
nav { margin-top: 26px; }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 8px; }
nav li { margin: 0; }
nav a { display: block; padding: 5px 12px; border: 1px solid var(--line); border-radius: 999px; background: var(--surface); color: var(--ink); text-decoration: none; font-size: .88rem; }
nav a:hover { border-color: var(--accent); color: var(--accent); }
.tiles, .figures { display: grid; gap: 14px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); margin: 22px 0 0; }
.tile, figure, .card { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; line-height: 1.35; display: block; }
.figures { grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); margin: 14px 0; }
.figures.pair { grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.figures.confusion { grid-template-columns: minmax(0, 680px) minmax(0, 1fr); }
.split { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 2fr); gap: 14px 28px; margin-top: 14px; align-items: start; }
figure { margin: 0; padding: 14px 14px 12px; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; margin: 4px 0 2px; overflow: visible; }
figure.square svg { max-width: 460px; }
figure svg text { white-space: pre; }
.sound { display: grid; grid-template-columns: 8.4rem minmax(0, 1fr); align-items: center; gap: 10px; margin-top: 6px; color: var(--muted); font-size: .82rem; line-height: 1.25; }
.scroll { overflow-x: auto; }
audio { width: 100%; height: 36px; display: block; }
.card { padding: 6px 16px; overflow-x: auto; }
.words { padding: 14px 18px; }
.words ol { padding-left: 1.6rem; margin: 8px 0 12px; }
.words li { margin: 5px 0; line-height: 1.4; font-size: .93rem; }
.words b { font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: left; padding: 8px 24px 8px 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child td { border-bottom: 0; }
th { font-size: .82rem; font-weight: 600; color: var(--muted); vertical-align: bottom; }
td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
.interval { color: var(--muted); font-size: .85em; font-weight: 400; white-space: nowrap; }
.nowrap, td:first-child { white-space: nowrap; }
.good { color: var(--good); font-weight: 600; }
.on-phone { display: none; }
.alarms { background: var(--warn); border: 1px solid var(--warn-line); border-radius: 10px; padding: 12px 16px; margin-top: 22px; }
.alarms ul { margin: 4px 0 0; }
ul, ol { padding-left: 1.25rem; margin: 8px 0 14px; }
li { margin: 4px 0; overflow-wrap: anywhere; }
code { font: .9em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
pre { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; margin: 10px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px; margin: 10px 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
details.card { margin-top: 10px; padding: 0 16px; }
summary { cursor: pointer; padding: 10px 0; font-weight: 600; font-size: .95rem; }
details .card { border: 0; border-radius: 0; padding: 0 0 8px; }
details dl { margin: 0 0 14px; font-size: .92rem; }
.bar { display: flex; align-items: center; flex-wrap: wrap; gap: 8px; color: var(--muted); font-size: .82rem; margin-top: 10px; font-variant-numeric: tabular-nums; }
.bar img { width: 160px; height: 10px; border-radius: 3px; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 18px; }
.key { display: inline-block; width: 18px; height: 0; border-top: 2.5px solid var(--accent); vertical-align: middle; margin: 0 6px 2px 0; }
.key.other { border-color: var(--muted); } figcaption .key + .key, figcaption .key.other ~ .key { margin-left: 12px; } .key.dash { border-top: 1.5px dashed var(--reference); }
.key.upright { width: 0; height: 12px; border-top: 0; border-left: 1.5px solid var(--reference); margin-right: 8px; }
.swatches { margin-top: 8px; } .swatch { white-space: nowrap; margin-left: 8px; } .swatch i, .dot { display: inline-block; width: 10px; height: 10px; background: var(--accent); margin-right: 2px; vertical-align: -1px; }
.swatch i.wrong, .dot.wrong { background: var(--reference); } .swatch i.wrong { margin-right: 4px; }
@media (max-width: 980px) { .figures.confusion, .split { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 700px) { .on-desk { display: none; } .on-phone { display: block; } .scroll svg { min-width: 560px; } }
@media (max-width: 560px) { main { padding: 24px 14px 48px; } section { margin-top: 40px; } .tiles { grid-template-columns: 1fr 1fr; } figure { padding: 12px 10px 10px; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: 8px; }
  .card { padding: 4px 12px; } .words { padding: 12px 14px; } table { font-size: .88rem; } th, td { padding: 7px 12px 7px 0; } td .interval { display: block; } .sound { grid-template-columns: minmax(0, 1fr); gap: 2px; } }
@media print { main { max-width: none; padding: 0; } nav, audio { display: none; } section { margin-top: 28px; } figure, .card, .tile, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll, .card { overflow: visible; } .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); } .figures.confusion { grid-template-columns: minmax(0, 1fr); } }
`;
