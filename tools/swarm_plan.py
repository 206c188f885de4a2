"""Who sums what of a round, as docs/formats/round.md tells it: the tree of each chunk, from what Open says."""

import collections

DIRECT, TWO_LEVEL, RING = 0, 1, 2


class Tree(collections.namedtuple("Tree", "owner parents")):
    """`parents` by contributor; the owner's is itself."""

    def children(self, index):
        return [other for other, parent in enumerate(self.parents) if parent == index and other != self.owner]


def direct(owner, count):
    return Tree(owner, [owner] * count)


def two_level(owner, regions, dialled, turns):
    """`turns`: how often each region had a head so far."""
    head_of = {}
    for region in set(regions) - {regions[owner]}:
        heads = [index for index in dialled if regions[index] == region]
        if heads:
            head_of[region] = heads[(turns[region] + turns[region] // len(heads)) % len(heads)]
            turns[region] += 1
    heads = [head_of.get(region, owner) for region in regions]
    return Tree(owner, [owner if head == index else head for index, head in enumerate(heads)])


def ring(owner, places, dialled):
    count = len(places)
    order = sorted(range(count), key=lambda index: places[index])

    def behind(index):
        return next(other for step in range(1, count + 1) if (other := order[(places[index] + step) % count]) in dialled)

    return Tree(owner, [owner if index == owner else behind(index) for index in range(count)])


def trees_of(opened):
    """By chunk."""
    count = len(opened.contributors)
    dialled = [index for index, one in enumerate(opened.contributors) if one["data"][0] or count == 1]
    places, turns, trees = [one["place"] for one in opened.places], collections.Counter(), []
    for entry in opened.owners:
        owner = entry["index"]
        if opened.plan == TWO_LEVEL and owner in dialled:
            trees.append(two_level(owner, places, dialled, turns))
        elif opened.plan == RING and owner in dialled:
            trees.append(ring(owner, places, dialled))
        else:
            trees.append(direct(owner, count))
    return trees
