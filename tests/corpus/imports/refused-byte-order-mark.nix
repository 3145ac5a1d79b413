{ ... }: { imports = [ ]; }
