"""What is done to the processes of a run and to their lines: a kind of fault is a function of the run, the random numbers and a member."""

import signal

KINDS = {}
COORDINATOR_KINDS = {}
# Frames at which something dies: before the frame has passed, or after.
FRAMES = ["Synced", "Ready", "Done", "Applied", "CatchUp", "Start", "Open", "Reown", "Commit", "Samples"]
DATA_FRAMES = ["DataHello", "Want", "Chunk"]


def kind(function):
    KINDS[function.__name__] = function
    return function


def coordinator_kind(function):
    COORDINATOR_KINDS[function.__name__] = function
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
    run.cut(member, True)
    run.later(rng.uniform(0.3, 10), member, lambda: run.cut(member, False))


@kind
def half_open(run, rng, member):
    """Its links stay, and nothing passes any more; the same for new ones, for a time."""
    doors = rng.choice([member.doors, member.doors[:1], member.doors[1:]])
    for door in doors:
        door.half_open(True)
    run.later(rng.uniform(0.3, 2 * run.dead_seconds), member, lambda: [door.half_open(False) for door in doors])


@kind
def delay(run, rng, member):
    """Every frame is late."""
    door = rng.choice(member.doors)
    door.delay_seconds = rng.uniform(0.02, 0.8)
    run.later(rng.uniform(1, 8), member, lambda: setattr(door, "delay_seconds", 0.0))


@kind
def reset(run, rng, member):
    """Its links break at once, on one side or on both."""
    for door in rng.choice([member.doors, member.doors[:1], member.doors[1:]]):
        door.reset()
    run.later(0, member, lambda: None)


def spoil(run, rng, member, order):
    pipes = [pipe for door in member.doors for pipe in door.pipes]
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
    run.coordinator_down_seconds = rng.uniform(0.1, 3)
    run.at_frame(rng.choice(FRAMES), rng.randint(1, 10), rng.random() < 0.5, run.kill_coordinator)


@coordinator_kind
def coordinator_stop(run, rng):
    """It stands still for less than the time after which members give it up."""
    run.stop_coordinator(rng.uniform(0.3, 0.6 * run.dead_seconds))
