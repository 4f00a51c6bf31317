module quiver/tests/torture

go 1.26.0
