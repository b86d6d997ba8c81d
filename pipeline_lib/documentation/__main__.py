"""Write every generated file: `python -m pipeline_lib.documentation`, or `make docs`."""

from pipeline_lib.documentation import main

if __name__ == "__main__":
    main()
