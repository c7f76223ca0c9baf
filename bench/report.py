"""report.py — results of bench/run as a table (Markdown), JSON, and a chart (SVG). Pure: text in, text out.

A result: {"row", "what", "unit", "client", "placement", "a", "b": who is compared, "pairs": [[a, b], …], "goal": [op, number] of the ratio
a / b or null, "note"}. Ratios are per pair; the table has the median and the range, never a mean of means.
"""
import html
import math
import statistics


def key(result):
    return f"{result['row']} {result['what']} {result['client']} {result['placement']} {result['a']} {result['b']}"


def ratios(result):
    return [a / b for a, b in result["pairs"] if b]


def met(result):
    """True, False, or None without a goal."""
    if not result["goal"] or not ratios(result):
        return None
    op, goal = result["goal"]
    ratio = statistics.median(ratios(result))
    return ratio >= goal if op == ">=" else ratio <= goal


def number(x):
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.3f}"


def order(result):
    letter = "PFCTR".find(result["row"][0])
    return (letter, int(result["row"][1:]), result["placement"] != "free")


def markdown(results, machine, head):
    lines = [head, "", "| row | measured | client | placement | this | beside | ratio: median (range) | goal | |", "|---|---|---|---|---|---|---|---|---|"]
    for r in sorted(results, key=order):
        q = ratios(r)
        a, b = (statistics.median(x) for x in zip(*r["pairs"]))
        ratio = f"**{number(statistics.median(q))}x** ({number(min(q))}-{number(max(q))}; {len(q)})" if q else "-"
        goal = f"{r['goal'][0].replace('>=', '≥').replace('<=', '≤')} {r['goal'][1]}x" if r["goal"] else ""
        verdict = {True: "met", False: "**missed**", None: ""}[met(r)]
        lines.append(f"| {r['row']} | {r['what']}, {r['unit']} | {r['client']} | {r['placement']} | {number(a)} ({r['a']}) | "
                     f"{number(b)} ({r['b']}) | {ratio} | {goal} | {verdict} |")
    facts = ", ".join(f"{k} {number(v['value'])} {v['unit']}".strip() for k, v in machine.items() if k != "load average before")
    return "\n".join([*lines, "", f"The machine, before: {facts}."]) + "\n"


def chart(results):
    """Ratios on a logarithmic axis: a bar from the lowest to the highest pair, a dot at the median, a line at the goal."""
    rows = [r for r in sorted(results, key=order) if r["goal"] and ratios(r)]
    low = min(min(min(ratios(r)), r["goal"][1]) for r in rows) if rows else 0.1
    high = max(max(max(ratios(r)), r["goal"][1]) for r in rows) if rows else 10
    low, high = math.floor(math.log10(max(low, 1e-4))), math.ceil(math.log10(high))
    left, width, step, top = 580, 520, 22, 64
    tall = top + step * len(rows) + 40

    def x(v):
        return left + width * (math.log10(max(v, 10 ** low)) - low) / max(high - low, 1)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 110}" height="{tall}" font-family="sans-serif" font-size="12">',
           f'<rect width="{left + width + 110}" height="{tall}" fill="white"/>',
           '<text x="12" y="24" font-size="16">Varve beside its references: ratio of each pair, and the goal</text>',
           '<text x="12" y="42" fill="#555">dot: median; bar: range of the pairs; line: goal (▸ at least, ◂ at most); logarithmic</text>']
    for decade in range(low, high + 1):
        at = x(10 ** decade)
        out += [f'<line x1="{at:.1f}" y1="{top - 8}" x2="{at:.1f}" y2="{tall - 28}" stroke="{"#888" if decade == 0 else "#ddd"}"/>',
                f'<text x="{at:.1f}" y="{tall - 12}" text-anchor="middle" fill="#555">{10.0 ** decade:g}x</text>']
    for i, r in enumerate(rows):
        y, q = top + step * i + 8, ratios(r)
        colour, goal = "#2a7" if met(r) else "#c43", x(r["goal"][1])
        label = html.escape(f"{r['row']}  {r['what']}, {r['client']}, {r['placement']}")
        out += [f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{label}</text>',
                f'<rect x="{x(min(q)):.1f}" y="{y - 4}" width="{max(x(max(q)) - x(min(q)), 1):.1f}" height="8" fill="{colour}" opacity="0.35"/>',
                f'<circle cx="{x(statistics.median(q)):.1f}" cy="{y}" r="4.5" fill="{colour}"/>',
                f'<line x1="{goal:.1f}" y1="{y - 9}" x2="{goal:.1f}" y2="{y + 9}" stroke="black" stroke-width="1.5"/>',
                f'<text x="{goal + (4 if r["goal"][0] == ">=" else -4):.1f}" y="{y + 4}" font-size="10" '
                f'text-anchor="{"start" if r["goal"][0] == ">=" else "end"}">{"▸" if r["goal"][0] == ">=" else "◂"}</text>',
                f'<text x="{left + width + 12}" y="{y + 4}" fill="{colour}">{number(statistics.median(q))}x</text>']
    return "\n".join([*out, "</svg>"]) + "\n"
