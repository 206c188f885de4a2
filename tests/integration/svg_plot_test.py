"""tools/svg_plot: what is drawn stands where its numbers say, and the file is one that a browser reads."""

import pathlib
import re
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from svg_plot import Axis, Row, Series, category_chart, line_chart, round_ticks  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def elements(text, tag, kind):
    return [one for one in xml.etree.ElementTree.fromstring(text).iter(SVG + tag) if kind in one.get("class", "").split()]


def places(text, kind):
    """Of the marks of a kind, in the order in which they were drawn."""
    return [tuple(map(float, re.findall(r"[\d.]+", one.get("transform")))) for one in elements(text, "g", kind)]


def texts(text):
    return {one.text: one for one in xml.etree.ElementTree.fromstring(text).iter(SVG + "text")}


class SvgPlotTest(unittest.TestCase):
    def test_points_stand_at_the_ticks_of_their_values(self):
        chart = line_chart("t", Axis("across", is_log=True, ticks=[3, 30, 300]), Axis("up"), [Series("s", [(3, 0), (30, 4), (300, 10)])])
        marks, found = places(chart, "mean")[:3], texts(chart)
        for (x, y), across, up in zip(marks, ("3", "30", "300"), ("0", "4", "10")):
            self.assertAlmostEqual(x, float(found[across].get("x")), delta=0.2)
            self.assertAlmostEqual(y + 4, float(found[up].get("y")), delta=0.2)
        self.assertAlmostEqual(marks[1][0] - marks[0][0], marks[2][0] - marks[1][0], delta=0.2)
        self.assertAlmostEqual(marks[1][1], 0.6 * marks[0][1] + 0.4 * marks[2][1], delta=0.2)
        self.assertLess(marks[2][1], marks[0][1])  # More is higher.

    def test_all_series_have_lines_marks_and_names(self):
        chart = line_chart("a < b", Axis("x"), Axis("y"), [Series("one & two", [(0, 1), (1, 2)], samples=[(0, 1.5)]),
                                                          Series("three", [(0, 1), (1, 3)], is_dashed=True, has_marks=False)])
        self.assertEqual(len(elements(chart, "polyline", "series")), 4)  # Two of them in the legend.
        self.assertEqual(len(elements(chart, "polyline", "dashed")), 2)
        self.assertEqual(len(places(chart, "sample")), 1)
        self.assertEqual(len(places(chart, "mean")), 4)
        self.assertLessEqual({"a < b", "one & two", "three", "x", "y"}, set(texts(chart)))

    def test_a_row_has_its_values_and_their_mean(self):
        chart = category_chart("t", Axis("x", tick_text="{:+.1f}"), [Row("heading", []), Row("first", [0, 1]), Row("second", [-1], colour=1)])
        first, second, third = places(chart, "sample")
        self.assertEqual(first[1], second[1])
        self.assertGreater(third[1], first[1])
        self.assertAlmostEqual(first[0], float(texts(chart)["+0.0"].get("x")), delta=0.2)
        means = [float(one.get("x1")) for one in elements(chart, "line", "series")]
        self.assertAlmostEqual(means[0], (first[0] + second[0]) / 2, delta=0.2)
        self.assertAlmostEqual(means[1], third[0], delta=0.2)

    def test_ticks_are_round_and_hold_all(self):
        self.assertEqual(round_ticks(0, 10), [0, 2, 4, 6, 8, 10])
        self.assertEqual(round_ticks(-0.004, 0.093), [-0.02, 0.0, 0.02, 0.04, 0.06, 0.08, 0.1])
        self.assertEqual(round_ticks(2.29, 2.31), [2.29, 2.295, 2.3, 2.305, 2.31])
        only = round_ticks(3, 3)
        self.assertLess(only[0], 3)
        self.assertGreater(only[-1], 3)


if __name__ == "__main__":
    unittest.main()
