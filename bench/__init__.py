"""What the stages share: options, who is attacked with whose shadow models, where everything lies.

`options` and `command_line`: every option once; `layout`: every path; `matchup`: who is attacked;
`run`: what a stage works with. `checkpoints`, `splits`, `outputs`, `attack_log`: what is kept, and
whether it fits; `remedies`: the commands that errors print. `training`, `pruning`, `signals`,
`attacking`, `tables`: what the stages do with it. `results` reads folders without options.
"""
