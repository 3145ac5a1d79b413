{ ... }:
{
  imports = [
    {
      imports = [ ];
      a = 1;
    }
  ];
  nested.imports = [ ./never.nix ];
}
