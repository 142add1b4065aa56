"""Run a whole study: a grid of options, each stage once however many of its cells share it.

python study.py config/studies/digits.json
python study.py config/studies/location.json --dry_run
python study.py config/studies/cifar10.json --ray auto --gpus_per_task 0.25

A study is a JSON file: "config" names a config or several, and any option of the stages stands with
one value or a list of them, "defend" as ["", "ppb", ["adv", 1]]. Every combination is a cell: a
victim that is attacked. "grids" may list several such objects, each of which adds to what stands
beside them. Given again, what is there is kept.
"""

from core import console  # first, see core.interrupts

# isort: split

import shlex
import sys

from studies.command_line import parse, runner_for
from studies.grid import read_cells
from studies.plan import cells_of, plan
from studies.running import counted, report_failures, run


@console.stage
def main(argv=None):
    asked = parse(argv, __doc__)
    jobs = plan(read_cells(asked.study, device=asked.device, results=asked.results))
    if asked.dry_run:
        for job in jobs:
            console.say(shlex.join(job.command))
        return
    cells, stages = counted(len(cells_of(jobs)), "cell"), counted(len(jobs), "stage")
    console.say(f"{asked.study}: {cells}, {stages} to run or to keep")
    runner = runner_for(asked, jobs)
    try:
        run(jobs, runner)
    finally:
        runner.stop()
    report_failures(jobs)
    console.say(f"all done: python report.py {asked.results} --study {asked.study}")


if __name__ == "__main__":
    sys.exit(main())
