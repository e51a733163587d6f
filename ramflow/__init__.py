"""ramflow: trains Recognize Anything (RAM++) image taggers and says first whether the run can be trusted."""

__version__ = "0.1.0"
