"""The pages as templates: they open without a network, in light and dark, on a screen and on paper."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --muted: #5b6470; --grid: #d9dde3;
  --band: #aab4c2; --good: #00704f; --bad: #b03a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2127; --ink: #e8eaed; --muted: #a3acb8;
  --grid: #353c46; --band: #56616f; --good: #3fcf9f; --bad: #ff8f52; } }
@media print { :root { color-scheme: light; --page: #ffffff; --card: #ffffff; --ink: #000000; --muted: #444444;
  --grid: #cccccc; --band: #aab4c2; --good: #00704f; --bad: #b03a00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1160px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 34px 0 10px; }
h3 { font-size: 14px; margin: 0; }
.status { color: var(--muted); margin: 0; }
.status b { color: var(--ink); }
.status b.good { color: var(--good); }
.status b.bad { color: var(--bad); }
.missing { border-left: 3px solid var(--bad); margin: 16px 0 0; padding: 2px 0 2px 12px; list-style: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(136px, 1fr)); gap: 10px; margin: 22px 0 14px; }
.tile { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 10px 12px; }
.tile .name { color: var(--muted); font-size: 13px; }
.tile .value { font-size: 19px; font-weight: 600; line-height: 1.3; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile .unit { display: block; overflow: hidden; text-overflow: ellipsis;
  color: var(--muted); font-size: 13px; font-weight: 400; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
.chart { border: 1px solid var(--grid); border-radius: 8px; padding: 12px 14px 8px; margin: 0; break-inside: avoid;
  min-width: 0; }
.chart.wide { grid-column: 1 / -1; }
.chart svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; margin: 4px 0 6px; padding: 0;
  list-style: none; color: var(--muted); }
.legend li { overflow-wrap: anywhere; min-width: 0; }
.swatch { display: inline-block; width: 20px; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: 6px; }
.symbol { display: inline-block; width: 20px; text-align: center; margin-right: 6px; }
.verdict { margin: -2px 0 10px; }
.note { color: var(--muted); font-size: 12.5px; margin: 2px 0 0; }
.note.above { margin: -6px 0 10px; }
.scroll { overflow-x: auto; }
.scroll.tall { max-height: 70vh; overflow-y: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; width: 100%; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 600; position: sticky; top: 0; background: var(--page); }
.arms th { white-space: normal; vertical-align: bottom; }
.arms td.name { min-width: 9em; }
@media screen { .arms table { font-size: 13px; } .arms th, .arms td { padding: 4px 6px; } }
td.text, th.text { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 8em; }
tr.total td { font-weight: 600; }
tr.warm-up td { color: var(--muted); }
td.main { font-weight: 600; }
details { margin-top: 12px; border: 1px solid var(--grid); border-radius: 8px; padding: 8px 14px; }
summary { cursor: pointer; font-weight: 600; }
details > :not(summary) { margin-top: 10px; }
pre { font: 13px/1.45 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; overflow-x: auto; margin: 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media screen and (max-width: 760px) {
  body { padding: 18px 12px 40px; }
  .charts { grid-template-columns: minmax(0, 1fr); }
  .chart.wide { overflow-x: auto; }
  .chart.wide svg { min-width: 640px; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 11px; }
  table { font-size: 10px; }
  th, td { padding: 2px 5px; }
  th { position: static; }
  .legend, .note { font-size: 10px; }
  .tiles { grid-template-columns: repeat(6, 1fr); }
  .tile .value { font-size: 15px; }
  .scroll, .scroll.tall { max-height: none; overflow: visible; }
  .screen, details:not([open]) { display: none; }
}
"""

# The policy makes a browser load nothing and run nothing, whatever a name in a job contains.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p class="status"><b class="{{ status_class }}">{{ status }}</b>
{% for part in status_parts %}
· {{ part }}
{% endfor %}
</p>
{% if missing %}
<ul class="missing">
{% for sentence in missing %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% endif %}
</header>

<section class="tiles">
{% for tile in tiles %}
<div class="tile"><div class="name">{{ tile.name }}</div>
<div class="value">{{ tile.value }} <span class="unit">{{ tile.unit }}</span></div></div>
{% endfor %}
</section>
"""

_END = """
{% if run %}
<details><summary>Run</summary>{{ grid(run) }}</details>
{% endif %}
{% if job %}
<details><summary>Job</summary><pre>{{ job }}</pre></details>
{% endif %}
</body>
</html>
"""

PAGE = (
    _HEAD
    + """
<div class="arms">{{ grid(arms) }}</div>
<p class="note">{{ arms_note }}</p>

<h2>{{ unit.capitalize() }} by {{ unit }}</h2>
{% if warm_up %}
<p class="note above">{{ warm_up }}</p>
{% endif %}
{{ figures(charts) }}

{% if plan %}
<h2>Sharding</h2>
{{ grid(plan) }}
{% endif %}

<h2 class="screen">Details</h2>
{% if all_tables %}
<details><summary>Every table</summary>{{ grid(all_tables, tall=True) }}</details>
{% endif %}
<details><summary>Every {{ unit }}</summary>{{ grid(every_day, tall=True) }}</details>
"""
    + _END
)
"""A train run."""

SEARCH_PAGE = (
    _HEAD
    + """
{% if contest %}
<h2>Finalists and baselines, each trained alone</h2>
{% if verdict %}
<p class="verdict">{{ verdict }}</p>
{% endif %}
<div class="arms">{{ grid(contest) }}</div>
<p class="note">{{ contest_note }}</p>
{% endif %}

{% if charts %}
<h2>The search</h2>
{{ figures(charts) }}
{% endif %}

{% if networks %}
<h2>The finalists' networks</h2>
<p class="note above">{{ networks_note }}</p>
{{ figures(networks) }}
{% endif %}

<h2 class="screen">Details</h2>
{% if supernet %}
<details><summary>The supernet, {{ unit }} by {{ unit }}</summary>{{ figures(supernet) }}</details>
{% endif %}
{% if every_run %}
<details><summary>Every run of a finalist or a baseline</summary>{{ grid(every_run, tall=True) }}</details>
{% endif %}
{% if errors %}
<details><summary>Failed trials</summary>{{ grid(errors, tall=True) }}</details>
{% endif %}
"""
    + _END
)
"""A search."""

MACROS = """
{% macro grid(table, tall=False) %}
<div class="scroll{{ ' tall' if tall }}"><table>
<thead><tr>
{% for column in table.columns %}
<th{% if column.text %} class="text"{% endif %}>{{ column.title }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if row.style %} class="{{ row.style }}"{% endif %}>
{% for cell in row.cells %}
<td{% if table.columns[loop.index0].style %} class="{{ table.columns[loop.index0].style }}"{% endif %}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro figures(charts) %}
<div class="charts">
{% for chart in charts %}
<figure class="chart{{ ' wide' if chart.wide }}">
<h3>{{ chart.title }}</h3>
<ul class="legend">
{% for line in chart.legend %}
{% if line.symbol %}
<li><span class="symbol" style="color: {{ line.colour }}">{{ line.symbol }}</span>{{ line.label }}</li>
{% else %}
<li><span class="swatch" style="border-top: 3px {{ line.dash }} {{ line.colour }}"></span>{{ line.label }}</li>
{% endif %}
{% endfor %}
</ul>
{{ chart.svg }}
{% if chart.notes %}
<p class="note">{{ chart.notes | join("; ") }}</p>
{% endif %}
</figure>
{% endfor %}
</div>
{% endmacro %}
"""
"""What the pages share: `grid(table, tall)` and `figures(charts)`."""
