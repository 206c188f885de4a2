"""What is done to the processes of a run and to their lines: a kind of fault is a function of the run, the random numbers and a member."""

import signal

KINDS = {}
COORDINATOR_KINDS = {}  # Without a member: whoever coordinates is meant.
FAIL_OVER_KINDS = {}    # The same, where another one takes over.
SELDOM = {"all_kill": 0.3}  # Beside 1 of all others: nobody is innocent for a minute after it.
# Frames at which something dies: before the frame has passed, or after.
FRAMES = ["Synced", "Ready", "Done", "Applied", "CatchUp", "Start", "Open", "Reown", "Commit", "Samples"]
DATA_FRAMES = ["DataHello", "Want", "Chunk"]


def kind(function):
    KINDS[function.__name__] = function
    return function


def coordinator_kind(function):
    COORDINATOR_KINDS[function.__name__] = function
    return function


def fail_over_kind(function):
    FAIL_OVER_KINDS[function.__name__] = function
    return function


@kind
def kill(run, rng, member):
    """SIGKILL at an exact frame of the member's own links; one in six comes back with an empty disk."""
    run.at_frame(rng.choice(FRAMES + DATA_FRAMES), rng.randint(1, 8), rng.random() < 0.5, lambda: run.kill(member), member)
    member.loses_disk = rng.random() < 1 / 6
    member.down_seconds = rng.uniform(0.2, 8)


@kind
def stop(run, rng, member):
    """SIGSTOP and, later, SIGCONT."""
    seconds = rng.uniform(0.3, 2 * run.dead_seconds)
    member.signal(signal.SIGSTOP)
    run.later(seconds, member, lambda: member.signal(signal.SIGCONT))


@kind
def cut(run, rng, member):
    """All its links break, and nobody can dial it or is dialled by it."""
    member.cut(True)
    run.later(rng.uniform(0.3, 10), member, lambda: member.cut(False))


@kind
def half_open(run, rng, member):
    """Its links stay, and nothing passes any more; the same for new ones, for a time."""
    lines = rng.choice([member.lines, member.lines[:1], member.lines[1:]])
    for line in lines:
        line.half_open(True)
    run.later(rng.uniform(0.3, 2 * run.dead_seconds), member, lambda: [line.half_open(False) for line in lines])


@kind
def delay(run, rng, member):
    """Every frame is late."""
    line = rng.choice(member.lines)
    line.delay_seconds = rng.uniform(0.02, 0.8)
    run.later(rng.uniform(1, 8), member, lambda: setattr(line, "delay_seconds", 0.0))


@kind
def reset(run, rng, member):
    """Its links break at once, those that it dialled, those by which it is dialled, or all."""
    for line in rng.choice([member.lines, member.lines[:1], member.lines[1:]]):
        line.reset()
    run.later(0, member, lambda: None)


def spoil(run, rng, member, order):
    pipes = [pipe for line in member.lines for pipe in line.pipes]
    for pipe in rng.sample(sorted(pipes, key=lambda pipe: pipe.number), min(len(pipes), rng.randint(1, 3))):
        pipe.order = order
    run.later(0.5, member, lambda: None)


@kind
def truncate(run, rng, member):
    """Half of a frame, and then the end."""
    spoil(run, rng, member, "truncate")


@kind
def flip(run, rng, member):
    """A bit of a frame is another one."""
    spoil(run, rng, member, "flip")


@coordinator_kind
def coordinator_kill(run, rng):
    """SIGKILL at an exact frame of any member; started again a moment later."""
    prepare_death(run, rng)
    run.at_frame(rng.choice(FRAMES), rng.randint(1, 10), rng.random() < 0.5, run.kill_who_coordinates)


@coordinator_kind
def coordinator_stop(run, rng):
    """It stands still; where another one takes over, also for so long that one does."""
    suspect = run.watch.coordinating
    run.touch(suspect)
    suspect.signal(signal.SIGSTOP)
    run.later(rng.uniform(0.3, (2 if run.fails_over else 0.6) * run.dead_seconds), suspect, lambda: suspect.signal(signal.SIGCONT))


@coordinator_kind
def coordinator_cut(run, rng):
    """All its links break, and nobody can dial it."""
    suspect = run.watch.coordinating
    run.touch(suspect)
    suspect.cut(True)
    run.later(rng.uniform(0.3, (2 if run.fails_over else 0.6) * run.dead_seconds), suspect, lambda: suspect.cut(False))


@fail_over_kind
def coordinator_and_next_kill(run, rng):
    """SIGKILL of whoever coordinates, and of the next one while it welcomes the others or goes on with them."""
    prepare_death(run, rng)
    run.kill_who_coordinates()

    def kill_next():
        run.kill_who_coordinates(run.watch.owner(run.watch.fired) if run.watch.fired else None)

    run.at_frame(rng.choice(["Welcome", "CatchUp", "Start", "Membership", "Open", "Commit"]), rng.randint(1, 4), rng.random() < 0.5, kill_next)


@fail_over_kind
def home_kill(run, rng):
    """`atoll coordinate`, whoever coordinates: for long, and often without its disk afterwards."""
    run.home.down_seconds, run.home.loses_disk = rng.uniform(0.1, 40), rng.random() < 0.5
    run.kill_home()


@fail_over_kind
def all_kill(run, rng):
    """SIGKILL of all at once, and all again in any order. Now and then `atoll coordinate` is spared."""
    if rng.random() < 0.7:
        run.home.down_seconds = rng.uniform(0, 5)
        run.kill_home()
    for member in rng.sample(run.members, len(run.members)):
        if member.is_up():
            member.down_seconds = rng.uniform(0, 5)
            run.touch(member)
            run.kill(member)
    run.choose_let_alone()


def prepare_death(run, rng):
    """Of whoever coordinates when it comes."""
    run.home.down_seconds = rng.uniform(5, 40) if run.fails_over and rng.random() < 0.5 else rng.uniform(0.1, 3)
    for member in run.members:
        if not member.busy:
            member.down_seconds = rng.uniform(0.2, 8)
