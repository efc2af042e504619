"""What a person saw at violet masses of ALL-IDB1 that no point of the experts names: most are smudged cells.

Positions are px of the fields. All masses of at least a third of the area of a red cell, and all boxes of the
first locators that hold no point, were looked at on 2026-11-30; what stayed unclear is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.patching.locator_maps import Kind

UNMARKED: Final[Mapping[str, tuple[tuple[int, int, Kind], ...]]] = {
    "Im001_1": (
        (64, 1345, Kind.SMUDGED),
        (287, 130, Kind.SMUDGED),
        (532, 1049, Kind.SMUDGED),
        (835, 333, Kind.SMUDGED),
        (887, 1170, Kind.SMUDGED),
        (911, 1318, Kind.SMUDGED),
        (1120, 1080, Kind.SMUDGED),
        (1674, 512, Kind.SMUDGED),
        (1683, 161, Kind.SMUDGED),
    ),
    "Im002_1": (
        (359, 997, Kind.SMUDGED),
        (385, 1058, Kind.SMUDGED),
        (589, 1327, Kind.SMUDGED),
        (662, 909, Kind.SMUDGED),
        (954, 435, Kind.SMUDGED),
        (1128, 1124, Kind.SMUDGED),
        (1225, 737, Kind.SMUDGED),
        (1448, 373, Kind.SMUDGED),
        (1510, 1012, Kind.SMUDGED),
    ),
    "Im003_1": (
        (297, 14, Kind.SMUDGED),
        (349, 675, Kind.SMUDGED),
        (1156, 537, Kind.SMUDGED),
        (1669, 550, Kind.SMUDGED),
    ),
    "Im004_1": (
        (167, 734, Kind.SMUDGED),
        (905, 81, Kind.SMUDGED),
        (1410, 319, Kind.SMUDGED),
        (1526, 1120, Kind.SMUDGED),
        (1585, 1089, Kind.SMUDGED),
    ),
    "Im005_1": (
        (14, 120, Kind.NUCLEATED),
        (551, 796, Kind.SMUDGED),
        (796, 57, Kind.NUCLEATED),
        (1298, 50, Kind.SMUDGED),
        (1502, 551, Kind.SMUDGED),
    ),
    "Im006_1": (
        (781, 1167, Kind.SMUDGED),
        (1091, 624, Kind.SMUDGED),
        (1446, 668, Kind.SMUDGED),
        (1456, 785, Kind.SMUDGED),
        (1639, 285, Kind.SMUDGED),
    ),
    "Im007_1": (
        (431, 278, Kind.SMUDGED),
        (531, 411, Kind.SMUDGED),
        (581, 711, Kind.SMUDGED),
        (1459, 732, Kind.SMUDGED),
    ),
    "Im008_1": (
        (360, 1122, Kind.SMUDGED),
        (1069, 1349, Kind.SMUDGED),
        (1308, 430, Kind.SMUDGED),
        (1535, 1311, Kind.SMUDGED),
    ),
    "Im009_1": (
        (340, 151, Kind.SMUDGED),
        (527, 1234, Kind.SMUDGED),
        (882, 499, Kind.NUCLEATED),
        (1313, 567, Kind.SMUDGED),
        (1607, 1131, Kind.SMUDGED),
    ),
    "Im010_1": (
        (115, 807, Kind.SMUDGED),
        (350, 61, Kind.SMUDGED),
        (752, 130, Kind.SMUDGED),
        (1089, 1223, Kind.SMUDGED),
        (1689, 573, Kind.SMUDGED),
    ),
    "Im011_1": (
        (101, 304, Kind.SMUDGED),
        (105, 453, Kind.SMUDGED),
        (582, 189, Kind.SMUDGED),
        (621, 136, Kind.SMUDGED),
        (1098, 909, Kind.SMUDGED),
        (1548, 397, Kind.SMUDGED),
    ),
    "Im012_1": (
        (191, 1100, Kind.SMUDGED),
        (806, 26, Kind.NUCLEATED),
        (1003, 1345, Kind.SMUDGED),
        (1264, 174, Kind.SMUDGED),
        (1565, 1085, Kind.SMUDGED),
    ),
    "Im030_1": ((233, 1189, Kind.PLATELET),),
    "Im048_1": (
        (40, 786, Kind.SMUDGED),
        (255, 1715, Kind.SMUDGED),
        (1596, 1376, Kind.SMUDGED),
        (1727, 1884, Kind.SMUDGED),
        (2109, 1573, Kind.SMUDGED),
        (2163, 1526, Kind.SMUDGED),
        (2266, 327, Kind.SMUDGED),
        (2282, 418, Kind.SMUDGED),
        (2533, 866, Kind.SMUDGED),
    ),
    "Im049_1": (
        (435, 1708, Kind.SMUDGED),
        (1198, 636, Kind.SMUDGED),
        (1330, 678, Kind.SMUDGED),
        (1598, 696, Kind.SMUDGED),
        (1782, 613, Kind.SMUDGED),
        (1882, 490, Kind.SMUDGED),
        (2199, 588, Kind.SMUDGED),
        (2543, 1789, Kind.NUCLEATED),
        (2544, 1715, Kind.NUCLEATED),
    ),
    "Im050_1": (
        (26, 1459, Kind.NUCLEATED),
        (242, 55, Kind.SMUDGED),
        (873, 1896, Kind.SMUDGED),
        (2179, 787, Kind.NUCLEATED),
        (2318, 190, Kind.SMUDGED),
        (2549, 863, Kind.SMUDGED),
    ),
    "Im051_1": (
        (76, 382, Kind.SMUDGED),
        (743, 1889, Kind.NUCLEATED),
        (869, 1905, Kind.NUCLEATED),
        (1561, 46, Kind.NUCLEATED),
    ),
    "Im052_1": (
        (1459, 324, Kind.SMUDGED),
        (2403, 25, Kind.NUCLEATED),
    ),
    "Im053_1": (
        (235, 1863, Kind.SMUDGED),
        (264, 119, Kind.SMUDGED),
        (567, 1543, Kind.SMUDGED),
        (2213, 17, Kind.SMUDGED),
        (2242, 1923, Kind.NUCLEATED),
        (2562, 430, Kind.SMUDGED),
    ),
    "Im054_1": ((19, 460, Kind.SMUDGED),),
    "Im055_1": (
        (233, 1902, Kind.SMUDGED),
        (348, 863, Kind.PLATELET),
        (353, 1666, Kind.PLATELET),
        (1363, 1490, Kind.NUCLEATED),
        (2231, 1310, Kind.SMUDGED),
    ),
    "Im056_1": ((281, 536, Kind.SMUDGED),),
    "Im057_1": (
        (19, 1487, Kind.NUCLEATED),
        (438, 1608, Kind.SMUDGED),
        (1838, 102, Kind.SMUDGED),
        (2076, 724, Kind.SMUDGED),
    ),
    "Im058_1": (
        (693, 576, Kind.SMUDGED),
        (1454, 70, Kind.SMUDGED),
        (1531, 1887, Kind.SMUDGED),
        (1799, 349, Kind.SMUDGED),
        (2096, 27, Kind.NUCLEATED),
    ),
    "Im064_0": ((286, 916, Kind.PLATELET),),
    "Im067_0": (
        (490, 294, Kind.PLATELET),
        (536, 243, Kind.PLATELET),
    ),
    "Im068_0": (
        (1621, 1590, Kind.PLATELET),
        (1751, 1504, Kind.PLATELET),
        (1791, 1556, Kind.PLATELET),
    ),
    "Im071_0": ((1033, 1060, Kind.PLATELET),),
    "Im105_0": ((1793, 550, Kind.NUCLEATED),),
    "Im106_0": ((663, 549, Kind.NUCLEATED),),
    "Im107_0": ((1831, 749, Kind.NUCLEATED),),
}
"""By field."""
