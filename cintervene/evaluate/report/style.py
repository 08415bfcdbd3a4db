# SPDX-License-Identifier: Apache-2.0
"""How pages look: on a phone, on a screen and on paper."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #5b6675; --line: #dfe3e8;
  --paper: #fff; --tint: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
p { max-width: 42rem; }
p.soft, figcaption { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
a { color: #0b5cad; }
.scroll { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--line);
  border-radius: .4rem; }
table { border-collapse: collapse; font-size: .88rem; min-width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
/* Numbers and their intervals stay on one line. */
td[style*="right"] { white-space: nowrap; }
td code { overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
th { background: var(--tint); font-weight: 600; white-space: normal;
  vertical-align: bottom; min-width: 4.5rem; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper);
  white-space: normal; min-width: 6.5rem; max-width: 12rem; }
th:first-child { background: var(--tint); }
caption { font-weight: 600; padding: .5rem .7rem .3rem; }
.settings td { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
figure { margin: 1rem 0; max-width: 31rem; }
figure svg { display: block; width: 100%; height: auto; }
.warning { border-left: .3rem solid #d55e00; background: #fdf3ec; padding: .6rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0;
  background: var(--paper); }
summary { cursor: pointer; padding: .6rem .8rem; overflow-wrap: anywhere; }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > div { padding: .3rem .8rem .8rem; }
ul { max-width: 42rem; padding-left: 1.2rem; }
.exchange { border: 1px solid var(--line); border-radius: .4rem; margin: .8rem 0;
  padding: .2rem .8rem .8rem; }
.answers { display: grid; gap: .7rem;
  grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); }
.answers h3, .asked h3 { font-size: .85rem; margin: .5rem 0 .2rem; }
pre { margin: 0; padding: .6rem; background: var(--tint); border-radius: .3rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .82rem/1.45 ui-monospace,
  monospace; max-height: 22rem; overflow-y: auto; }
pre + pre { margin-top: .6rem; }
.mark { display: inline-block; border-radius: 1rem; padding: 0 .5rem;
  font-size: .78rem; font-weight: 600; border: 1px solid; }
.pair { white-space: nowrap; margin-right: .5rem; font-size: .85rem; }
.good { color: #00684a; } .bad { color: #a13d00; } .dull { color: #5b6675; }
@media (max-width: 30rem) { th, td { padding: .35rem .45rem; }
  table { font-size: .8rem; }
  td:first-child, th:first-child { min-width: 5rem; } }
@media print { details > div { display: none; } body { max-width: none; } }
"""
