#!/usr/bin/env python3
"""kernels_bench's JSON as tables for the READMEs and as a picture.

  bench_report.py RESULT.json [--counts COUNTS.json] [--table FILE.md] [--summary FILE.md] [--svg FILE.svg]

--table writes everything, --summary two sentences, between the lines
<!-- bench: begin --> and <!-- bench: end --> of a file that has them. With kernels_count's
JSON, --table also writes instructions a weight and a cycle between <!-- counts: begin -->
and <!-- counts: end -->. Standard library only. Exit 1: no result in the file, or no such lines.
"""
import argparse
import json
import sys

BACKENDS = ("scalar", "portable", "avx2", "avx512")
COLOURS = {"ggml": "#9a9a9a", "scalar": "#c9b458", "portable": "#d98a4e", "avx2": "#6aa6d6", "avx512": "#2f6db3"}


def number(v):
    return "-" if v is None else "%.1f" % v if v < 100 else "%.0f" % v


def best(row, who):
    return row[who]["best"] if who in row else None


def used(result):
    return [b for b in BACKENDS if any(b in r for r in result["types"])]


def name(row):
    return row["type"] + (", imatrix" if row["weighted"] else "")


def head(result):
    m = result["machine"]
    text = "%s, %s, one core at %.2f GHz" % (m["date"], m["cpu"], m["ghz"])
    if m["lanes"]:
        text += ", %.1f vector operations of %d floats a cycle" % (m["vector_ops_per_cycle"], m["lanes"])
    return text + "; gcc %s. Million weights a second, best of %d rounds that took turns." % (m["compiler"], m["rounds"])


def table(result):
    backends = used(result)
    lines = [head(result), "", "| type | " + " | ".join(backends) + " | ggml | ratio | floor | share of floor | wanted on Zen 4 |",
             "|---|" + "---|" * (len(backends) + 5)]
    for r in result["types"]:
        lines.append("| %s | %s | %s | %s | %s | %s | %s |" % (
            name(r), " | ".join(number(best(r, b)) for b in backends), number(best(r, "ggml")),
            "%.1f" % r["ratio"] if "ratio" in r else "-", number(r.get("floor")),
            "%.0f %%" % (100 * r["share"]) if "share" in r else "-", number(r.get("wanted"))))
    different = [r for r in result["types"] if r.get("ggml_blocks_different")]
    lines += ["", "Every backend's bytes were scalar C's before it was timed" + (
        "; ggml's differed in " + ", ".join("%d blocks of %s" % (r["ggml_blocks_different"], name(r)) for r in different)
        if different else ", and ggml's bytes were the same" if any("ggml" in r for r in result["types"]) else "") + "."]
    if result.get("rows"):
        lines += ["", "Out of memory and into memory, FP8 under block scales; the copy is a `memcpy` that moves as many bytes:", "",
                  "| from | to | bytes read and written for a weight | converted | copied | share |", "|---|---|---|---|---|---|"]
        lines += ["| %s | %s | %.2f | %s | %s | %.0f %% |" % (
            r["from"], r["type"], r["bytes"], number(r["converted"]["best"]), number(r["copied"]["best"]),
            100 * r["converted"]["best"] / r["copied"]["best"]) for r in result["rows"]]
    if result.get("threads"):
        lines += ["", "Two cores against one: the same FP8 rows shared out, the best of 300 turns of a few milliseconds each, "
                  "core 0, core 1 and both in turns; copy: a `memcpy` of the source:", "", "| type | one core | two cores | ratio |", "|---|---|---|---|"]
        lines += ["| %s | %s | %s | %.2f |" % (r["type"], number(r["one"]), number(r["two"]), r["two"] / r["one"])
                  for r in result["threads"]]
    return lines


def counted(result, counts):
    """Instructions a weight by kind, and with the rates of the same build instructions a cycle."""
    ghz = result["machine"]["ghz"]
    rows = {(r["type"], r["weighted"]): r for r in result["types"]}
    lines = ["Instructions for a weight (%s), and how many of them a cycle at the rates above and %.2f GHz; vector: all that is "
             "done in vector registers but moves." % (counts[0]["backend"], ghz), "",
             "| type | all | arithmetic | compare, blend | shuffle | divide | move | scalar, mask | a cycle | vector a cycle | share of floor |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for c in counts:
        r = rows.get((c["type"], c["weighted"]), {})
        rate = best(r, c["backend"]) if c["backend"] in r else None
        vector = c["arithmetic"] + c["compare"] + c["shuffle"] + c["divide"]
        three = lambda v: "%.3g" % v
        lines.append("| %s | %s | %s | %s | %s |" % (
            name(c), " | ".join(three(v) for v in (c["all"], c["arithmetic"], c["compare"], c["shuffle"], c["divide"], c["move"],
                                                   c["scalar"] + c["mask"])),
            "%.1f" % (c["all"] * rate / ghz / 1e3) if rate else "-", "%.1f" % (vector * rate / ghz / 1e3) if rate else "-",
            "%.0f %%" % (100 * r["share"]) if "share" in r else "-"))
    return lines


def summary(result):
    rows = sorted((r for r in result["types"] if "ratio" in r), key=lambda r: r["ratio"])
    lines = [head(result)]
    if rows:
        least, most, middle = rows[0], rows[-1], rows[len(rows) // 2]
        lines.append("Against ggml on the same core: from %.1f times (%s) to %.1f times (%s), the median %.1f times (%s: %s against %s million weights a second)."
                     % (least["ratio"], name(least), most["ratio"], name(most), middle["ratio"], name(middle),
                        number(middle["ours"]), number(best(middle, "ggml"))))
    return lines


def insert(path, what, lines):
    begin, end = "<!-- %s: begin -->" % what, "<!-- %s: end -->" % what
    text = open(path, encoding="utf-8").read()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        sys.exit("%s: no pair of lines '%s' and '%s'" % (path, begin, end))
    before, after = text[:text.index(begin)], text[text.index(end):]
    with open(path, "w", encoding="utf-8") as f:
        f.write(before + begin + "\n" + "\n".join(lines) + "\n" + after)


def svg(result):
    """Bars of Mweights/s on a logarithmic axis, a tick for the floor."""
    from math import log10
    rows = [r for r in result["types"] if not r["weighted"] or not any(
        o["type"] == r["type"] and not o["weighted"] for o in result["types"])]
    who = [w for w in ("ggml", "scalar", "avx2", "avx512") if any(w in r for r in rows)]
    bar, gap, left, top, width = 6, 7, 92, 74, 700
    high = max(max(r[w]["best"] for w in who if w in r) for r in rows)
    high = max([high] + [r["floor"] for r in rows if "floor" in r])
    low = min(min(r[w]["best"] for w in who if w in r) for r in rows)
    lo, hi = int(log10(low) // 1), int(-(-log10(high) // 1))
    x = lambda v: left + (width - left - 60) * (log10(v) - lo) / (hi - lo)
    height = top + len(rows) * (len(who) * bar + gap) + 30
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">'
           % (width, height), '<rect width="100%" height="100%" fill="#ffffff"/>',
           '<text x="12" y="20" font-size="14" fill="#222222">Quantizing, million weights a second on one core</text>']
    m = result["machine"]
    out.append('<text x="12" y="36" fill="#555555">%s, %.2f GHz, %s; without an imatrix where a type can</text>'
               % (m["cpu"].replace("&", "&amp;").replace("<", "&lt;"), m["ghz"], m["date"]))
    at = 12
    for w in who:
        out.append('<rect x="%d" y="46" width="10" height="10" fill="%s"/><text x="%d" y="55" fill="#222222">%s</text>'
                   % (at, COLOURS[w], at + 14, w))
        at += 30 + 7 * len(w)
    out.append('<rect x="%d" y="45" width="2" height="12" fill="#c03030"/><text x="%d" y="55" fill="#222222">'
               'floor of the arithmetic</text>' % (at, at + 8))
    for e in range(lo, hi + 1):
        out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/><text x="%.1f" y="%d" fill="#555555" '
                   'text-anchor="middle">%g</text>' % (x(10 ** e), top - 6, x(10 ** e), height - 24, x(10 ** e), height - 10, 10 ** e))
    y = top
    for r in rows:
        out.append('<text x="%d" y="%.1f" fill="#222222" text-anchor="end">%s</text>'
                   % (left - 8, y + len(who) * bar / 2 + 4, r["type"]))
        for w in who:
            if w in r:
                v = r[w]["best"]
                out.append('<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"><title>%s, %s: %s</title></rect>'
                           % (left, y, max(x(v) - left, 1), bar - 1, COLOURS[w], r["type"], w, number(v)))
                if w == who[-1]:
                    out.append('<text x="%.1f" y="%d" font-size="9" fill="#222222">%s</text>' % (x(v) + 4, y + bar, number(v)))
            y += bar
        if "floor" in r:
            out.append('<rect x="%.1f" y="%d" width="2" height="%d" fill="#c03030"/>'
                       % (x(r["floor"]), y - len(who) * bar, len(who) * bar - 1))
        y += gap
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("result")
    p.add_argument("--counts")
    p.add_argument("--table")
    p.add_argument("--summary")
    p.add_argument("--svg")
    a = p.parse_args()
    try:
        result = json.load(open(a.result, encoding="utf-8"))
        counts = json.load(open(a.counts, encoding="utf-8")) if a.counts else None
        if not result["types"] or counts == []:
            raise ValueError("no types in it")
    except (OSError, ValueError, KeyError) as e:
        sys.exit("%s: %s" % (a.result, e))
    if a.table:
        insert(a.table, "bench", table(result))
        if counts:
            insert(a.table, "counts", counted(result, counts))
    if a.summary:
        insert(a.summary, "bench", summary(result))
    if a.svg:
        open(a.svg, "w", encoding="utf-8").write(svg(result))
    if not (a.table or a.summary or a.svg):
        print("\n".join(table(result) + ([""] + counted(result, counts) if counts else [])))


if __name__ == "__main__":
    main()
