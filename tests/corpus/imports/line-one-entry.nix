{ ... }: { imports = [ ./hardware-configuration.nix ]; networking.hostName = "a"; }
