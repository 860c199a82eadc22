"""Files from one host to another: an rsync daemon that receives for one operation, and rsync that sends."""
