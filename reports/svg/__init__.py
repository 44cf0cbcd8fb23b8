"""Charts as SVG: pure functions from plain data to markup. They name no colours and no fonts, only classes, so that one
drawing serves both themes (`api/pages/static/design.css`). The same data give the same bytes.

`figure.py` makes a chart into a figure, with its title, description and table. Each other module is a kind of chart.
"""
