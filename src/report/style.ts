/** The report's style sheet: system fonts, light and dark, one column on a phone. Figures draw with the variables set here. */
export const STYLE = `
:root { color-scheme: light dark; --page: #f6f6f4; --surface: #ffffff; --ink: #1c1d1f; --muted: #64686e; --line: #e7e7e3; --axis: #b5b7b3;
  --accent: #2563c9; --reference: #b4530a; --warn: #fdf3e3; --warn-line: #e0a64b; --good: #17795e; }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --surface: #1c1e21; --ink: #eceded; --muted: #9ba1a8; --line: #2c2f33; --axis: #51565c;
  --accent: #7ab0ff; --reference: #f0a35e; --warn: #2b2417; --warn-line: #97702c; --good: #5fcfae; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: clamp(1.6rem, 4vw, 2.2rem); line-height: 1.2; letter-spacing: -.015em; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; letter-spacing: -.005em; margin: 44px 0 4px; }
h3 { font-size: .95rem; margin: 0 0 2px; overflow-wrap: anywhere; }
p { margin: 0 0 14px; max-width: 46rem; }
.lead { font-size: 1.08rem; color: var(--muted); }
.muted, figcaption { color: var(--muted); font-size: .88rem; line-height: 1.45; }
.tiles, .figures { display: grid; gap: 14px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); margin: 22px 0 0; }
.tile, figure, .card { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; line-height: 1.35; display: block; }
.figures { grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); margin-top: 14px; }
.figures.pair { grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
figure { margin: 0; padding: 14px 14px 12px; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; margin: 4px 0 2px; overflow: visible; }
figure.square svg { max-width: 460px; }
figure svg text { white-space: pre; }
audio { width: 100%; height: 38px; margin-top: 6px; }
.card { padding: 6px 16px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 9px 14px 9px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { font-size: .85rem; font-weight: 600; color: var(--muted); }
td.n, th.n { text-align: right; padding-right: 28px; }
p.muted { max-width: 60rem; }
.on-phone { display: none; }
.alarms { background: var(--warn); border: 1px solid var(--warn-line); border-radius: 10px; padding: 12px 16px; margin-top: 22px; }
.alarms ul { margin: 4px 0 0; }
ul, ol { padding-left: 1.25rem; margin: 8px 0 14px; }
li { margin: 4px 0; overflow-wrap: anywhere; }
code { font: .9em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
pre { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; margin: 10px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 10px 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
.bar { display: flex; align-items: center; gap: 8px; color: var(--muted); font-size: .82rem; margin-top: 10px; font-variant-numeric: tabular-nums; }
.bar img { width: 160px; height: 10px; border-radius: 3px; }
.key { display: inline-block; width: 18px; height: 0; border-top: 2.5px solid var(--accent); vertical-align: middle; margin: 0 4px 2px 0; }
.key.other { border-color: var(--muted); margin-left: 12px; } .key.dash { border-top: 1.5px dashed var(--reference); margin-left: 12px; }
@media (max-width: 700px) { .on-desk { display: none; } .on-phone { display: block; } }
@media (max-width: 560px) { main { padding: 24px 14px 48px; } .tiles { grid-template-columns: 1fr 1fr; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
@media print { body { background: #fff; } figure, .card, .tile { break-inside: avoid; } }
`;
