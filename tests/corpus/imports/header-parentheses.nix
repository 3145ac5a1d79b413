({ ... }: ((with builtins; ({
  imports = [ ./a.nix ];
}))))
