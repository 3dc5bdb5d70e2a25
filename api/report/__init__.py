"""Reports: a job or a group as one self-contained HTML file. The same rows and files give the same bytes."""
