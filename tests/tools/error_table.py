#!/usr/bin/env python3
"""`make error-table`: what every recipe and `plan --target-size` lose on a checkpoint, by size,
as a table between two marks of a Markdown file and as a picture. No figure is typed by hand.

  error_table.py SLUICE CHECKPOINT --imatrix FILE --layout L --readme FILE.md --svg FILE
                 --work DIR --sizes 7M,8M [--chunks N]

--chunks: KL divergence and perplexity too, by llama.cpp on N chunks of the licence texts."""
import argparse
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BEGIN, END = "<!-- error-table: made by make error-table -->", "<!-- end of error-table -->"


def sluice(a, *args):
    return subprocess.run([a.sluice, *args], check=True, stdout=subprocess.PIPE, text=True).stdout


def plan(a, *args):
    return json.loads(sluice(a, "plan", a.source, "--json", "-q", "--layout", a.layout,
                             "--imatrix", a.imatrix, "--split-max-size", "0", *args))


def measure_all(a):
    rows = []
    for line in sluice(a, "recipes").splitlines():
        name = line.split()[0] if line.split() else ""
        if not name or name in ("nvfp4-kept", "v4-mxfp4") or subprocess.run([a.sluice, "recipes", name], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL).returncode:
            continue
        try:
            j = plan(a, "--recipe", name, "--measure")
        except subprocess.CalledProcessError:
            print(f"{name}: not for this source", file=sys.stderr)
            continue
        rows.append({"name": name, "recipe": name, "made": False, "plan": j})
    for size in a.sizes.split(","):
        path = os.path.join(a.work, f"size-{size}.recipe")
        if os.path.exists(path):
            os.unlink(path)
        j = plan(a, "--target-size", size, "--write-recipe", path)
        rows.append({"name": f"--target-size {size}", "recipe": path, "made": True, "plan": j})
    for r in rows:
        r["bytes"], r["bits"] = r["plan"]["file_bytes"], r["plan"]["bits_per_weight"]
        r["error"] = r["plan"]["measure"]["mean_error"]
    return sorted(rows, key=lambda r: (r["bytes"], r["name"]))


def run_llama(a, rows):
    files = {}
    for i, r in enumerate([{"recipe": "f32"}] + rows):
        files[i] = os.path.join(a.work, f"{i}.gguf")
        sluice(a, "convert", a.source, "-o", files[i], "-f", "-q", "--layout", a.layout, "--imatrix", a.imatrix,
               "--split-max-size", "0", "--recipe", r["recipe"])
    out = subprocess.run([sys.executable, os.path.join(HERE, "llama.py"), "perplexity", *list(files.values())[1:],
                          "--base", files[0], "--reference", os.path.join(a.source, "reference"),
                          "--chunks", str(a.chunks)], stdout=subprocess.PIPE, text=True)
    got = {j["file"]: j for j in map(json.loads, out.stdout.splitlines()) if "file" in j}
    for i, r in enumerate(rows):
        r["kl"] = got.get(files[i + 1], {}).get("kl")
        if os.path.getsize(files[i + 1]) != r["bytes"]:
            sys.exit(f"{r['name']}: the file has another size than its plan")
        os.unlink(files[i + 1])
    os.unlink(files[0])


def table(a, rows):
    head = ["recipe", "bytes", "bits a weight", "measured error"] + (["KL divergence"] if a.chunks else [])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        name = f"**`{r['name']}`**" if r["made"] else r["name"]
        cells = [name, str(r["bytes"]), "%.3f" % r["bits"], "%.3g" % r["error"]]
        if a.chunks:
            cells.append("%.5f" % max(r["kl"], 0) if r["kl"] is not None else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def place(label, px, py, made, colour, taken):
    """A label beside its point where it covers no other, with a thread when it is far off."""
    wide, high = 5.6 * len(label), 10
    near = [(6, 3), (-6 - wide, 3), (-wide / 2, -7), (-wide / 2, 15), (6, -6), (6, 12), (-6 - wide, 12)]
    far = [(d * k - (wide if d < 0 else 0), v * k) for k in (14, 24, 36, 50, 66, 84) for d, v in
           ((0.7, -1), (-0.7, 1), (0.3, -1.2), (-0.3, 1.2), (1, -0.6), (-1, 0.6))]
    for dx, dy in (near[::-1] if made else near) + far:
        box = (px + dx, py + dy - high + 2, px + dx + wide, py + dy + 2)
        if box[0] > 70 and box[2] < 850 and not any(
                box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
            break
    taken.append(box)
    thread = ""
    if (dx, dy) in far:
        ex = box[0] if dx > 0 else box[2]
        thread = (f'<line x1="{px:.1f}" y1="{py:.1f}" x2="{ex:.1f}" y2="{py + dy - 3:.1f}" stroke="{colour}" '
                  'stroke-width="0.4"/>')
    return (f'{thread}<text x="{box[0]:.1f}" y="{py + dy:.1f}" font-size="9" '
            f'fill="{colour}">{label}</text>')


def picture(rows):
    rows = [r for r in rows if r["error"] > 1e-5]
    w, h, left, top, right, bottom = 860, 520, 70, 30, 20, 50
    x0, x1 = min(r["bytes"] for r in rows) * 0.96, max(r["bytes"] for r in rows) * 1.04
    y0 = math.floor(math.log10(min(r["error"] for r in rows)))
    y1 = math.ceil(math.log10(max(r["error"] for r in rows)))
    x = lambda v: left + (w - left - right) * math.log(v / x0) / math.log(x1 / x0)
    y = lambda v: top + (h - top - bottom) * (y1 - math.log10(v)) / (y1 - y0)
    s = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
         'font-family="sans-serif" font-size="11">',
         f'<rect width="{w}" height="{h}" fill="#fff"/>',
         f'<text x="{left}" y="18" font-size="13">Measured error against file size: tests/tiny-v3, with its '
         'imatrix</text>']
    for d in range(y0, y1 + 1):
        s.append(f'<line x1="{left}" x2="{w - right}" y1="{y(10.0 ** d):.1f}" y2="{y(10.0 ** d):.1f}" stroke="#ddd"/>'
                 f'<text x="{left - 8}" y="{y(10.0 ** d) + 4:.1f}" text-anchor="end">{10.0 ** d:g}</text>')
    for mb in (6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22):
        if x0 <= mb * 1e6 <= x1:
            s.append(f'<line x1="{x(mb * 1e6):.1f}" x2="{x(mb * 1e6):.1f}" y1="{top}" y2="{h - bottom}" '
                     f'stroke="#eee"/><text x="{x(mb * 1e6):.1f}" y="{h - bottom + 16}" '
                     f'text-anchor="middle">{mb}</text>')
    s.append(f'<text x="{(left + w) / 2}" y="{h - 14}" text-anchor="middle">MB</text>')
    line = " ".join(f'{x(r["bytes"]):.1f},{y(r["error"]):.1f}' for r in rows if r["made"])
    s.append(f'<polyline points="{line}" fill="none" stroke="#c33" stroke-width="1.5"/>')
    taken = [(x(r["bytes"]) - 4, y(r["error"]) - 4, x(r["bytes"]) + 4, y(r["error"]) + 4) for r in rows]
    for r in sorted(rows, key=lambda r: (not r["made"], r["bytes"])):
        px, py = x(r["bytes"]), y(r["error"])
        colour, size = ("#c33", 4) if r["made"] else ("#247", 3)
        label = r["name"].replace("--target-size ", "") if r["made"] else r["name"]
        s.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{size}" fill="{colour}"/>')
        s.append(place(label, px, py, r["made"], colour, taken))
    s.append(f'<text x="{w - right - 6}" y="{top + 14}" text-anchor="end" fill="#c33">plan --target-size</text>'
             f'<text x="{w - right - 6}" y="{top + 28}" text-anchor="end" fill="#247">stock recipes</text></svg>')
    return "\n".join(s) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("sluice")
    p.add_argument("source")
    for name in ("imatrix", "layout", "readme", "svg", "work", "sizes"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--chunks", type=int, default=0)
    a = p.parse_args()
    text = open(a.readme).read()
    if BEGIN not in text or END not in text:
        sys.exit(f"{a.readme}: the marks of the table are not there")
    os.makedirs(a.work, exist_ok=True)
    rows = measure_all(a)
    if a.chunks:
        run_llama(a, rows)
    # What the table says must hold for it.
    for r in rows:
        if r["made"] and any(not o["made"] and o["bytes"] <= r["bytes"] and o["error"] < r["error"] for o in rows):
            sys.exit(f"{r['name']}: a stock recipe of that size is better")
    with open(a.svg, "w") as f:
        f.write(picture(rows))
    text = open(a.readme).read()
    at, to = text.index(BEGIN) + len(BEGIN), text.index(END)
    with open(a.readme, "w") as f:
        f.write(text[:at] + "\n" + table(a, rows) + "\n" + text[to:])
    print(table(a, rows))


if __name__ == "__main__":
    main()
