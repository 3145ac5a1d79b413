{
  description = "x";
  inputs.nixpkgs.url = "nixpkgs";
  outputs = { self, nixpkgs }: { imports = [ ]; };
}
