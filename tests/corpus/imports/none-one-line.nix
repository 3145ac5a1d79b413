{ ... }: { networking.hostName = "a"; }
