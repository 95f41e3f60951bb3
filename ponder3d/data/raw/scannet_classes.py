"""ScanNet's classes, colours and split: facts that its benchmark publishes, not in the downloads themselves.

Source: ScanNet v2's task files (the validation scenes), the benchmark scripts of ScanNet and ScanNet200 (class numbers,
names, colours and the groups by frequency).
"""

from collections.abc import Mapping

from ponder3d.data.raw import nyu40
from ponder3d.data.raw.dataset import LabelTable
from ponder3d.types import LabelSet

BENCHMARK20 = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""NYU40 numbers of the 20 classes that ScanNet's benchmark scores."""

_SCANNET200 = """
1 174 199 232 head wall
2 188 189 34 head chair
3 152 223 138 head floor
4 255 152 150 head table
5 214 39 40 head door
6 91 135 229 head couch
7 31 119 180 head cabinet
8 229 91 104 head shelf
9 247 182 210 head desk
10 91 229 110 head office chair
11 255 187 120 head bed
13 141 91 229 head pillow
14 112 128 144 head sink
15 196 156 148 head picture
16 197 176 213 head window
17 44 160 44 head toilet
18 148 103 189 head bookshelf
19 229 91 223 head monitor
21 219 219 141 head curtain
22 192 229 91 head book
23 88 218 137 head armchair
24 58 98 137 head coffee table
26 177 82 239 head box
27 255 127 14 head refrigerator
28 237 204 37 head lamp
29 41 206 32 head kitchen cabinet
31 62 143 148 head towel
32 34 14 130 head clothes
33 143 45 115 head tv
34 137 63 14 head nightstand
35 23 190 207 head counter
36 16 212 139 head dresser
38 90 119 201 head stool
39 125 30 141 common cushion
40 150 53 56 head plant
41 186 197 62 head ceiling
42 227 119 194 head bathtub
44 38 100 128 common end table
45 120 31 243 common dining table
46 154 59 103 common keyboard
47 169 137 78 common bag
48 143 245 111 head backpack
49 37 230 205 common toilet paper
50 14 16 155 common printer
51 196 51 182 head tv stand
52 237 80 38 head whiteboard
54 138 175 62 common blanket
55 158 218 229 head shower curtain
56 38 96 167 head trash can
57 190 77 246 head closet
58 208 49 84 head stairs
59 208 193 72 common microwave
62 55 220 57 head stove
63 10 125 140 common shoe
64 76 38 202 common computer tower
65 191 28 135 common bottle
66 211 120 42 common bin
67 118 174 76 common ottoman
68 17 242 171 common bench
69 20 65 247 head board
70 208 61 222 head washing machine
71 162 62 60 head mirror
72 210 235 62 head copier
73 45 152 72 common basket
74 35 107 149 head sofa chair
75 160 89 237 head file cabinet
76 227 56 125 common fan
77 169 143 81 common laptop
78 42 143 20 head shower
79 25 160 151 tail paper
80 82 75 227 common person
82 253 59 222 common paper towel dispenser
84 240 130 89 common oven
86 123 172 47 head blinds
87 71 194 133 common rack
88 24 94 205 tail plate
89 134 16 179 head blackboard
90 159 32 52 common piano
93 213 208 88 common suitcase
95 64 158 70 common rail
96 18 163 194 head radiator
97 65 29 153 head recycling bin
98 177 10 109 common container
99 152 83 7 head wardrobe
100 83 175 30 tail soap dispenser
101 18 199 153 common telephone
102 61 81 208 tail bucket
103 213 85 216 tail clock
104 170 53 42 common stand
105 161 192 38 common light
106 23 241 91 common laundry basket
107 12 103 170 common pipe
110 151 41 245 head clothes dryer
112 133 51 80 tail guitar
115 184 162 91 tail toilet paper holder
116 50 138 38 common seat
118 31 237 236 tail speaker
120 39 19 208 common column
121 223 27 180 common bicycle
122 254 141 85 common ladder
125 97 144 39 head bathroom stall
128 106 231 176 head shower wall
130 12 61 162 tail cup
131 124 66 140 common jacket
132 137 66 73 common storage bin
134 250 253 26 common coffee maker
136 55 191 73 common dishwasher
138 60 126 146 tail paper towel roll
139 153 108 234 common machine
140 184 58 125 common mat
141 135 84 14 common windowsill
145 139 248 91 tail bar
148 53 200 172 tail toaster
154 63 69 134 common bulletin board
155 190 75 186 tail ironing board
156 127 63 52 common fireplace
157 141 182 25 tail soap dish
159 56 144 89 head kitchen counter
161 64 160 250 head doorframe
163 182 86 245 tail toilet paper dispenser
165 139 18 53 common mini fridge
166 134 120 54 tail fire extinguisher
168 49 165 42 tail ball
169 51 128 133 tail hat
170 44 21 163 tail shower curtain rod
177 232 93 193 common water cooler
180 176 102 54 tail paper cutter
185 116 217 17 tail tray
188 54 209 150 common shower door
191 60 99 204 common pillar
193 129 43 144 common ledge
195 252 100 106 tail toaster oven
202 187 196 73 tail mouse
208 13 158 40 tail toilet seat cover dispenser
213 52 122 152 common furniture
214 128 76 202 common cart
221 187 50 115 tail storage container
229 180 141 71 tail scale
230 77 208 35 tail tissue box
232 72 183 168 tail light switch
233 97 99 203 tail crate
242 172 22 158 tail power outlet
250 155 64 40 common decoration
261 118 159 30 tail sign
264 69 252 148 tail projector
276 45 103 173 common closet door
283 111 38 149 common vacuum cleaner
286 184 9 49 tail candle
300 188 174 67 tail plunger
304 53 206 53 tail stuffed animal
312 97 235 252 tail headphones
323 66 32 182 common dish rack
325 236 114 195 tail broom
331 241 154 83 tail guitar case
342 133 240 52 common range hood
356 16 205 144 tail dustpan
370 75 101 198 tail hair dryer
392 237 95 251 tail water bottle
395 191 52 49 tail handicap bar
399 227 254 54 tail purse
408 49 206 87 tail vent
417 48 113 150 tail shower floor
488 125 73 182 tail water pitcher
540 229 32 114 head mailbox
562 158 119 28 tail bowl
570 60 205 27 tail paper bag
572 18 215 201 tail alarm clock
581 79 76 153 tail music stand
609 134 13 116 common projector screen
748 192 97 63 common divider
776 108 163 18 tail laundry detergent
1156 95 220 156 common bathroom counter
1163 98 141 208 head object
1164 144 19 193 head bathroom vanity
1165 166 36 57 head closet wall
1166 212 202 34 common laundry hamper
1167 23 206 34 common bathroom stall door
1168 91 211 236 common ceiling light
1169 79 55 137 common trash bin
1170 182 19 117 tail dumbbell
1171 134 76 14 head stair rail
1172 87 185 28 tail tube
1173 82 224 187 common bathroom cabinet
1174 92 110 214 tail cd case
1175 168 80 171 tail closet rod
1176 197 63 51 tail coffee kettle
1178 175 199 77 common structure
1179 62 180 98 tail shower head
1180 8 91 150 tail keyboard piano
1181 77 15 130 tail case of water bottles
1182 154 65 96 tail coat rack
1183 197 152 11 common storage organizer
1184 59 155 45 tail folded chair
1185 12 147 145 tail fire alarm
1186 54 35 219 tail power strip
1187 210 73 181 tail calendar
1188 221 124 77 tail poster
1189 149 214 66 common potted plant
1190 72 185 134 tail luggage
1191 42 94 198 common mattress
"""
"""The 200 classes of ScanNet200: number in the label table (its column ``id``), colour, group, name."""

_ROWS = tuple(line.split(maxsplit=5) for line in _SCANNET200.strip().splitlines())
IDS200 = tuple(int(row[0]) for row in _ROWS)
"""Numbers of ScanNet200's classes; raw ids are the same numbers."""
LABELS200 = LabelSet(tuple(row[5] for row in _ROWS), tuple((int(r), int(g), int(b)) for _, r, g, b, _, _ in _ROWS))
GROUPS200 = tuple(row[4] for row in _ROWS)
"""``head``, ``common`` or ``tail`` for each of ScanNet200's classes: how often it occurs. Scores are given for each."""

_VAL = """
0011 0015 0019 0025 0030 0046 0050 0063 0064 0077 0081 0084 0086 0088 0095 0100 0131 0139 0144 0146 0149 0153
0164 0169 0187 0193 0196 0203 0207 0208 0217 0221 0222 0231 0246 0249 0251 0256 0257 0277 0278 0300 0304 0307
0314 0316 0328 0329 0334 0338 0342 0343 0351 0353 0354 0355 0356 0357 0377 0378 0382 0389 0406 0412 0414 0423
0426 0427 0430 0432 0435 0441 0458 0461 0462 0474 0488 0490 0494 0496 0500 0518 0527 0535 0549 0550 0552 0553
0558 0559 0565 0568 0574 0575 0578 0580 0583 0591 0593 0595 0598 0599 0606 0607 0608 0609 0616 0618 0621 0629
0633 0643 0644 0645 0647 0648 0651 0652 0653 0655 0658 0660 0663 0664 0665 0670 0671 0678 0684 0685 0686 0689
0690 0693 0695 0696 0697 0699 0700 0701 0702 0704
"""
VAL_ROOMS = frozenset(int(number) for number in _VAL.split())
"""Numbers of the rooms whose 312 scans validate. The 1,201 scans of the other rooms up to 706 train."""
FIRST_TEST_ROOM = 707
"""Rooms from this number to 806 are the 100 of the hidden test."""


def official_split(room: int) -> str:
    """``train``, ``val`` or ``test``: where ScanNet v2 puts the scans of a room, the first number in a scene's name."""
    if room >= FIRST_TEST_ROOM:
        return "test"
    return "val" if room in VAL_ROOMS else "train"


def label_tables(nyu40_of: Mapping[int, int], table_id_of: Mapping[int, int]) -> tuple[LabelTable, ...]:
    """ScanNet20, ScanNet200 and NYU40.

    Args:
        nyu40_of: NYU40 number of each raw id.
        table_id_of: id in the table of categories of each raw id that this does not have.
    """
    row_of = {raw_id: row for row, raw_id in enumerate(IDS200)}
    row_of |= {raw_id: row_of[known] for raw_id, known in table_id_of.items() if known in row_of}
    return (
        _by_nyu40("scannet20", BENCHMARK20, nyu40_of),
        LabelTable("scannet200", LABELS200, tuple(sorted(row_of.items())), IDS200),
        _by_nyu40("nyu40", nyu40.IDS, nyu40_of),
    )


def _by_nyu40(name: str, numbers: tuple[int, ...], nyu40_of: Mapping[int, int]) -> LabelTable:
    row_of = {number: row for row, number in enumerate(numbers)}
    rows = tuple((i, row_of[number]) for i, number in sorted(nyu40_of.items()) if number in row_of)
    return LabelTable(name, nyu40.label_set(numbers), rows, numbers)
