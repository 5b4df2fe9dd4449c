"""One self-contained HTML page from what a run measured: no network, no script, every picture and video inside."""

from ornstein.report.page import Figures, Filmstrip, Gallery, Picture, Report, RobotSection, Video, write_report

__all__ = ["Figures", "Filmstrip", "Gallery", "Picture", "Report", "RobotSection", "Video", "write_report"]
