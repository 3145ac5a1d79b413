# The marks that a definition can carry: conditions, merges, priorities, order.
lib: let
  self = {
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkOptionDefault = self.mkOverride 1500;
    mkDefault = self.mkOverride 1000;
    mkImageMediaOverride = self.mkOverride 60;
    mkForce = self.mkOverride 50;
    mkVMOverride = self.mkOverride 10;
    mkOrder = priority: content: {
      _type = "order";
      inherit priority content;
    };
    mkBefore = self.mkOrder 500;
    mkAfter = self.mkOrder 1500;
    mkFixStrictness = lib.id;
    mkAssert = condition: message: content:
      self.mkIf (
        if condition
        then true
        else throw "\nFailed assertion: ${message}"
      )
      content;
    mkDerivedConfig = option: f: self.mkIf option.isDefined (self.mkOverride option.highestPrio (f option.value));
    defaultOverridePriority = 100;
    defaultOrderPriority = 1000;
  };
in
  self
