"""What attacks found: loaded (`results`), averaged (`summary`), compared (`comparison`), written.

`document` is what a report consists of; `answer`, `tables`, `pictures` and `signal_pictures` make
its parts, `figures`, `signal_plots` and `privacy_plot` draw, and `page` renders the templates
beside it.
"""
