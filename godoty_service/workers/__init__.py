"""Several processes on one port: who holds the port, who starts and watches the processes, and how they meet."""
